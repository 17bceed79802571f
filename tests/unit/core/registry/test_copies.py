"""Copies of versions: how bytes are compared, which tags come along, and the chain of where they come from."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.actor import Actor
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.registry.copies import (
    CopiedFile,
    CopiedFrom,
    CopyRequest,
    copied_from,
    copy_of,
    copy_tags,
    differences,
    manifest_digest,
    read_copied_from,
    require_same_copy,
    require_same_model,
)
from airflow_mcp.exceptions import EvidenceError

RUN = Run("r-copy", "1", "FINISHED")


def file(path: str, content: str = "x") -> CopiedFile:
    return CopiedFile(path=path, size=len(content), sha256=hashlib.sha256(content.encode()).hexdigest())


def version(number: str = "3", **tags: str) -> ModelVersion:
    return ModelVersion("fraud", number, "READY", run_id="r1", tags={f"airflow_mcp.{tag}": tags[tag] for tag in tags})


def request(expected: str | None) -> CopyRequest:
    return CopyRequest(
        identity="i",
        run_id="r",
        model_name="fraud",
        version="3",
        source_run_id="r1",
        expected_digest=expected,
    )


def test_the_digest_is_that_of_what_sha256sum_prints() -> None:
    files = [file("b/c.txt", "2"), file("MLmodel", "1"), file("b.txt", "3")]
    printed = "".join(f"{hashlib.sha256(text).hexdigest()}  {path}\n" for path, text in LISTED)
    assert manifest_digest(files) == f"sha256:{hashlib.sha256(printed.encode()).hexdigest()}"
    assert manifest_digest(reversed(files)) == manifest_digest(files)


LISTED = (("MLmodel", b"1"), ("b.txt", b"3"), ("b/c.txt", b"2"))


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ([file("a"), file("b")], ()),
        ([file("a", "y"), file("b")], ("a",)),
        ([file("a")], ("b",)),
        ([file("a"), file("b"), file("c")], ("c",)),
        ([file("A"), file("b")], ("A", "a")),
    ],
)
def test_files_that_differ_are_named(found: list[CopiedFile], named: tuple[str, ...]) -> None:
    sent = (file("a"), file("b"))
    assert differences(sent, found) == named
    assert (manifest_digest(found) == manifest_digest(sent)) == (named == ())
    if named:
        with pytest.raises(EvidenceError, match=rf"differs from its source in {len(named)} file\(s\): {named[0]}"):
            require_same_copy(sent, tuple(found))


def test_a_source_is_held_to_the_digest_that_it_has_on_record() -> None:
    files = (file("a"),)
    require_same_model(request(None), files)
    require_same_model(request(manifest_digest(files)), files)
    with pytest.raises(EvidenceError, match=r"version 3 of 'fraud' was changed: .* It was not copied"):
        require_same_model(request(manifest_digest((file("a", "y"),))), files)


def test_a_source_has_one_name_whoever_copies_it_and_others_have_others() -> None:
    here = copy_of("https://dev", version())
    assert here == copy_of("https://dev", version(rolled_back="bad"))
    others = [copy_of("https://test", version()), copy_of("https://dev", version("4"))]
    assert len({here, *others}) == 3


def tags(source: ModelVersion, *, carry: bool = False) -> dict[str, str]:
    origin = copied_from(
        "https://dev", source, at="2026-11-21T05:00:00+00:00", by=Actor("task", "dag.copy", "run-1"), digest="sha256:ab"
    )
    return copy_tags(source, origin, name="n", run=RUN, carry_gate_verdict=carry)


def test_provenance_comes_along_and_what_was_found_out_elsewhere_does_not() -> None:
    source = version(
        data_version="v7",
        code_commit="abc",
        gate_verdict="approved",
        gate_approval="by a person",
        load_check="passed",
        load_check_record="{}",
        rolled_back="bad",
        model_version="fraud/3",
    )
    copied = tags(source)
    assert copied.pop(contract.TAG_COPIED_FROM)
    assert copied == {
        contract.TAG_DATA_VERSION: "v7",
        contract.TAG_CODE_COMMIT: "abc",
        contract.TAG_COPIED_GATE_VERDICT: "approved",
        contract.TAG_COPY_OF: "n",
        contract.TAG_COPY_RUN: "r-copy",
        contract.TAG_MODEL_DIGEST: "sha256:ab",
    }
    assert tags(source, carry=True)[contract.TAG_GATE_VERDICT] == "approved"
    assert contract.TAG_GATE_VERDICT not in tags(version(), carry=True)


def test_a_copy_of_a_copy_tells_the_whole_way_as_long_as_a_tag_can_hold_it() -> None:
    source, lengths = version(), []
    for _ in range(12):
        source = ModelVersion("fraud", "3", "READY", run_id="r1", tags=tags(source))
        lengths.append(len(source.tags[contract.TAG_COPIED_FROM]))
    origin = read_copied_from(source.tags)
    assert origin is not None
    depth, link = 0, origin.copied_from
    while link:
        depth, link = depth + 1, link.get("copied_from", {})
    assert depth == 5
    assert lengths[-1] == lengths[-2] < 2000


@pytest.mark.parametrize("text", ["", "x", "[]", "3", '{"server": "s"}', '{"unknown": 1}'])
def test_what_somebody_else_wrote_is_no_origin(text: str) -> None:
    assert read_copied_from({contract.TAG_COPIED_FROM: text}) is None


def test_an_origin_is_read_as_it_was_written_and_told_in_one_line() -> None:
    origin = CopiedFrom("https://dev", "fraud", "3", "r1", "2026", "dag", "sha256:ab")
    assert read_copied_from({contract.TAG_COPIED_FROM: origin.to_tag()}) == origin
    assert "digest" not in json.loads(CopiedFrom("s", "m", "1", "r", "t", "b").to_tag())
    assert str(origin) == "version 3 of fraud at https://dev, sha256:ab"


@pytest.mark.parametrize(("field", "value"), [("version", "latest"), ("model_name", ""), ("expected_digest", "md5:1")])
def test_a_request_that_is_not_one_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        CopyRequest.model_validate({**request(None).model_dump(), field: value})
