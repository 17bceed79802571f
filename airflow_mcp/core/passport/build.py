"""Builds a passport from what is recorded about a version, and compares one with what is recorded now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mcp.core import contract
from airflow_mcp.core.document import plain
from airflow_mcp.core.gate.judgement import GateReport
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.passport.statement import (
    BuilderFacts,
    CodeFacts,
    ConfigFacts,
    DataFacts,
    GateFacts,
    ImageFacts,
    LoadCheckFacts,
    ModelFacts,
    Passport,
    RunFacts,
    Statement,
)
from airflow_mcp.core.registry.copies import CopiedFrom, read_copied_from, run_of
from airflow_mcp.core.registry.load_check import read_load_check
from airflow_mcp.exceptions import PassportError

_PROVENANCE = (
    contract.TAG_CODE_URL,
    contract.TAG_CODE_REF,
    contract.TAG_CODE_COMMIT,
    contract.TAG_CODE_HASH,
    contract.TAG_CONFIG_HASH,
    contract.TAG_DATA_URI,
    contract.TAG_DATA_VERSION,
    contract.TAG_DATA_HASH,
    contract.TAG_IMAGE,
    contract.TAG_IMAGE_DIGEST,
    contract.TAG_ENVIRONMENT,
)
"""Tags that a version has from its run; both must say the same."""
_MAY_BE_EMPTY = frozenset({"model", "compared_with", "gate", "load_check", "builder", "unknown"})
"""Parts whose empty fields are not listed as unknown: nothing was there, or the part is listed as a whole."""
_AS_ISSUED = frozenset({"load_check", "builder", "unknown"})
"""Parts that a later load check or a later version of the package changes without another model."""
_OF_THE_SOURCE = frozenset({"model.id", "run", "compared_with", "gate.decision"})
"""Parts of a copy that only the server of its source knows."""


@dataclass(frozen=True)
class GateRecord:
    """The gate's report as it is stored."""

    report: GateReport
    """With the decision ``approved`` when a person has approved it."""
    hash: str
    inputs_hash: str = ""
    """Hash of the stored arguments and answers; empty when there are none."""


@dataclass(frozen=True)
class VersionRecord:
    """Everything that is recorded about a version."""

    version: ModelVersion
    run: Run | None
    """Its run; None when it has none, or it was deleted."""
    gate: GateRecord | None
    compared_with: str | None = ""
    """Digest of the passport of the champion that the gate compared with; empty without a champion, None when it has
    no passport."""


def build_statement(record: VersionRecord, builder_version: str) -> Statement:
    """Return the statement of a version.

    :param record: what is recorded about it.
    :param builder_version: version of this package.
    :raises PassportError: when the digest of its files is not recorded, it did not pass a load check, or its tags and
        those of its run differ.
    """
    version = record.version
    what = f"version {version.version} of {version.name!r}"
    check = read_load_check(version.tags)
    if check is None or check.verdict != "passed" or not check.digest:
        raise PassportError(
            f"{what} has no passed load check that recorded the digest of its files"
            f"{f' ({check})' if check else ''}. No passport was issued; run LoadCheckOperator first"
        )
    if differing := tuple(_contradictions(version, record.run)):
        raise PassportError(f"{what} and its MLflow run differ: {'; '.join(differing)}. No passport was issued")
    tags = version.tags
    origin = _origin(version)
    known = {
        "run": RunFacts(id=_run_id(version, origin), experiment=_experiment(record.run, origin)),
        "code": CodeFacts(
            url=tags.get(contract.TAG_CODE_URL, ""),
            ref=tags.get(contract.TAG_CODE_REF, ""),
            commit=tags.get(contract.TAG_CODE_COMMIT, ""),
            hash=tags.get(contract.TAG_CODE_HASH, ""),
        ),
        "config": ConfigFacts(digest=tags.get(contract.TAG_CONFIG_HASH, "")),
        "image": ImageFacts(name=tags.get(contract.TAG_IMAGE, ""), digest=tags.get(contract.TAG_IMAGE_DIGEST, "")),
    }
    passport = Passport(
        model=ModelFacts(name=version.name, id=version.model_id),
        data=tuple(_data(tags, record.gate)),
        gate=_gate(record.gate),
        compared_with=record.compared_with or "",
        load_check=LoadCheckFacts(verdict=check.verdict, image=check.image, libraries=dict(check.libraries)),
        environment=tags.get(contract.TAG_ENVIRONMENT, ""),
        builder=BuilderFacts(version=builder_version),
        **known,
    )
    unknown = tuple(sorted(_unknown(plain(passport), record)))
    return Statement(check.digest, passport.model_copy(update={"unknown": unknown}))


def differences(issued: Statement, now: Statement, *, is_copy: bool) -> tuple[str, ...]:
    """Return how a passport differs from what is recorded now: ``code.commit is A in the passport, and B now``.

    The load check and the version of this package may differ: a later check of the same files does not make another
    model.

    :param issued: the statement that was signed.
    :param now: what :func:`build_statement` returns now.
    :param is_copy: whether the version is a copy: its logged model and run are other ones, and what its gate compared
        with is on another server.
    """
    before, after = (dict(_flat(plain(one.passport))) for one in (issued, now))
    before["files"], after["files"] = issued.files, now.files
    free = _AS_ISSUED | _OF_THE_SOURCE if is_copy else _AS_ISSUED
    return tuple(
        f"{field} is {before.get(field) or 'not known'} in the passport, and {after.get(field) or 'not known'} now"
        for field in sorted(before.keys() | after.keys())
        if before.get(field) != after.get(field) and not _is_of(field, free)
    )


def is_copy(version: ModelVersion) -> bool:
    """Return whether a version is a copy of another one."""
    return contract.TAG_COPY_RUN in version.tags


def _contradictions(version: ModelVersion, run: Run | None) -> Iterator[str]:
    """Yield how the tags of a version differ from those of its run. The run of a copy is about the copying only."""
    if run is None and run_of(version):
        yield f"the run {run_of(version)} does not exist any more"
    if run is None or is_copy(version):
        return
    for tag in _PROVENANCE:
        of_version, of_run = version.tags.get(tag, ""), run.tags.get(tag, "")
        if of_version != of_run:
            yield f"{tag} is {of_version or 'not set'} on the version, and {of_run or 'not set'} on the run"


def _origin(version: ModelVersion) -> CopiedFrom | None:
    """Return where the first of a chain of copies was made; None for a version that is not a copy."""
    found = read_copied_from(version.tags)
    while found is not None and found.copied_from:
        found = CopiedFrom(**{"at": "", "by": "", "run_id": "", **found.copied_from})
    return found


def _run_id(version: ModelVersion, origin: CopiedFrom | None) -> str:
    return origin.run_id if origin is not None else version.run_id


def _experiment(run: Run | None, origin: CopiedFrom | None) -> str:
    return run.experiment_id if run is not None and origin is None else ""


def _data(tags: Mapping[str, str], gate: GateRecord | None) -> Iterator[DataFacts]:
    yield DataFacts(
        role="training",
        uri=tags.get(contract.TAG_DATA_URI, ""),
        version=tags.get(contract.TAG_DATA_VERSION, ""),
        digest=tags.get(contract.TAG_DATA_HASH, ""),
    )
    pin = gate.report.dataset if gate is not None else None
    if pin is not None:
        yield DataFacts(role="evaluation", uri=pin.uri, version=pin.version, digest=pin.hash)


def _gate(record: GateRecord | None) -> GateFacts | None:
    if record is None:
        return None
    report = record.report
    return GateFacts(
        verdict=report.verdict.value,
        decision=report.decision.value if report.decision else "",
        mode=report.mode,
        report=record.hash,
        inputs=record.inputs_hash,
        evidence=report.evidence_identity,
    )


def _unknown(passport: Mapping[str, Any], record: VersionRecord) -> Iterator[str]:
    for field, value in _flat(passport):
        if value == "" and not _is_of(field, _MAY_BE_EMPTY):
            yield field
    if record.gate is None:
        yield "gate"
    if record.compared_with is None:
        yield "compared_with"


def _flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the fields of a passport as ``code.commit`` with their text."""
    for name, item in value.items():
        field = f"{path}.{name}" if path else name
        if isinstance(item, list | tuple):
            for number, one in enumerate(item):
                # A list of datasets is told apart by the role of each.
                key = str(one.get("role", number)) if isinstance(one, Mapping) else str(number)
                yield from _flat({key: one}, field)
        elif isinstance(item, Mapping):
            yield from _flat(item, field)
        else:
            yield field, "" if item is None else str(item)


def _is_of(field: str, parts: frozenset[str]) -> bool:
    """Return whether a field is one of some, or a part of one."""
    names = field.split(".")
    return any(".".join(names[: number + 1]) in parts for number in range(len(names)))
