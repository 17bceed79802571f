"""Whether a version may be loaded: every kind of evidence missing, wrong or edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from airflow_mcp.core import contract
from airflow_mcp.core.registry.load_check import LoadCheck
from airflow_mcp.core.serving.pairing import PairingRule, Surroundings, check_pairing

DIGEST = "sha256:" + "d" * 64
DATA = "sha256:" + "a" * 64
LIBRARIES = {"python": "3.12.1", "mlflow": "3.17.2", "scikit-learn": "1.9.1"}
HERE = Surroundings(image="sha256:" + "1" * 64, libraries={**LIBRARIES, "uvicorn": "0.54"})
CHECK = LoadCheck("passed", "it loads", "2026-11-29T00:00:00+00:00", "r1", "registry/runtime:1", LIBRARIES)
RUN = {
    contract.TAG_GATE_VERDICT: "passed",
    contract.TAG_DATA_HASH: DATA,
    contract.TAG_DATA_VERSION: "2026-11-28",
}
VERSION = {**RUN, contract.TAG_MODEL_DIGEST: DIGEST, **CHECK.to_tags()}
ENFORCE, WARN = PairingRule(), PairingRule("warn")


def without(tags: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in tags.items() if name not in names}


def checked(**changes: Any) -> dict[str, str]:
    fields = {"verdict": "passed", "reason": "", "at": "", "image": CHECK.image, "libraries": LIBRARIES, **changes}
    return {**VERSION, **LoadCheck(**fields).to_tags()}


def test_a_version_whose_evidence_fits_may_be_loaded() -> None:
    found = check_pairing(VERSION, RUN, DIGEST, HERE, ENFORCE)
    assert (found.verdict, found.reasons) == ("passed", ())


@pytest.mark.parametrize("verdict", ["warned", "approved"])
def test_a_gate_that_was_opened_by_a_person_is_open(verdict: str) -> None:
    tag = {contract.TAG_GATE_VERDICT: verdict}
    assert check_pairing({**VERSION, **tag}, {**RUN, **tag}, DIGEST, HERE, ENFORCE).may_load


WEAK: dict[str, tuple[dict[str, str], dict[str, str] | None, str]] = {
    "no gate": (
        without(VERSION, contract.TAG_GATE_VERDICT),
        without(RUN, contract.TAG_GATE_VERDICT),
        "gate verdict is none",
    ),
    "failed gate": (
        {**VERSION, contract.TAG_GATE_VERDICT: "failed"},
        {**RUN, contract.TAG_GATE_VERDICT: "failed"},
        "gate verdict is failed",
    ),
    "edited gate": (VERSION, {**RUN, contract.TAG_GATE_VERDICT: "failed"}, "that of its run is failed"),
    "no run": (VERSION, None, "run, which does not exist"),
    "no load check": (
        without(VERSION, contract.TAG_LOAD_CHECK, contract.TAG_LOAD_CHECK_RECORD),
        RUN,
        "never passed a load check",
    ),
    "inconclusive load check": (checked(verdict="inconclusive", reason="no example"), RUN, "no example"),
    "edited load check": ({**VERSION, contract.TAG_LOAD_CHECK_RECORD: "{}"}, RUN, "its tags disagree"),
    "other library": (
        checked(libraries={**LIBRARIES, "scikit-learn": "1.8.0"}),
        RUN,
        "scikit-learn 1.8.0 there and 1.9.1 here",
    ),
    "library missing here": (checked(libraries={"torch": "2.9"}), RUN, "torch 2.9 there and not installed here"),
    "unknown libraries": (checked(libraries={}), RUN, "another image (registry/runtime:1)"),
    "no data hash": (
        without(VERSION, contract.TAG_DATA_HASH),
        without(RUN, contract.TAG_DATA_HASH),
        "hash of its training data is not recorded",
    ),
    "edited data hash": ({**VERSION, contract.TAG_DATA_HASH: "sha256:b"}, RUN, "data hash is sha256:b"),
    "no digest": (without(VERSION, contract.TAG_MODEL_DIGEST), RUN, "digest of its files is not recorded"),
}


@pytest.mark.parametrize("case", WEAK)
def test_evidence_that_is_missing_or_does_not_fit_refuses(case: str) -> None:
    version, run, reason = WEAK[case]
    found = check_pairing(version, run, DIGEST, HERE, ENFORCE)
    assert found.verdict == "refused"
    assert str(found).endswith("to serve it without, set AIRFLOW_MCP_SERVING_PAIRING=warn")
    assert not found.may_load
    assert reason in str(found)


@pytest.mark.parametrize("case", WEAK)
def test_evidence_that_is_missing_or_does_not_fit_is_reported_with_warn(case: str) -> None:
    version, run, reason = WEAK[case]
    found = check_pairing(version, run, DIGEST, HERE, WARN)
    assert found.verdict == "warned"
    assert found.may_load
    assert reason in str(found)


@pytest.mark.parametrize("rule", [ENFORCE, WARN], ids=["enforce", "warn"])
class TestAlwaysRefused:
    def test_is_a_failed_load_check(self, rule: PairingRule) -> None:
        found = check_pairing(checked(verdict="failed", reason="it does not load"), RUN, DIGEST, HERE, rule)
        assert not found.may_load
        assert "it does not load" in str(found)

    def test_are_other_files_than_the_recorded_ones(self, rule: PairingRule) -> None:
        found = check_pairing(VERSION, RUN, "sha256:" + "e" * 64, HERE, rule)
        assert not found.may_load
        assert "its files have digest" in str(found)
        assert "PAIRING=warn" not in str(found)  # which would not help


def test_the_load_check_may_be_the_one_that_records_the_digest() -> None:
    version = without(checked(digest=DIGEST), contract.TAG_MODEL_DIGEST)
    assert check_pairing(version, RUN, DIGEST, HERE, ENFORCE).may_load
    found = check_pairing(version, RUN, "sha256:" + "e" * 64, HERE, WARN)
    assert not found.may_load


def test_the_image_of_the_load_check_makes_its_libraries_unimportant() -> None:
    version = checked(image=f"registry/runtime:1@{HERE.image}", libraries={"torch": "2.9"})
    assert check_pairing(version, RUN, DIGEST, HERE, ENFORCE).may_load


@pytest.mark.parametrize(
    ("allowed", "may_load"),
    [(("2026-*",), True), ((DATA,), True), (("2025-*", DATA), True), (("2025-*",), False), (("sha256:*",), False)],
)
def test_data_must_be_among_the_allowed(allowed: tuple[str, ...], may_load: bool) -> None:
    found = check_pairing(VERSION, RUN, DIGEST, HERE, PairingRule(allowed_data=allowed))
    assert found.may_load is may_load
    assert may_load or "trained with data 2026-11-28, which is not among the allowed" in str(found)


def test_data_without_a_label_is_known_by_its_hash_only() -> None:
    version, run = (without(tags, contract.TAG_DATA_VERSION) for tags in (VERSION, RUN))
    assert not check_pairing(version, run, DIGEST, HERE, PairingRule(allowed_data=("*",))).may_load
