"""Whether a version may be loaded: what its tags, those of its run, its files and this image say about each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from airflow_mcp.core import contract
from airflow_mcp.core.gate.rules.verdicts import OPENING
from airflow_mcp.core.registry.load_check import LoadCheck, read_load_check

PairingMode = Literal["enforce", "warn"]
_ABSENT = "none"
_ADVICE = (
    "A version that was registered by hand needs this evidence too; "
    "to serve it without, set AIRFLOW_MCP_SERVING_PAIRING=warn"
)


@dataclass(frozen=True)
class PairingRule:
    """What is checked before a version is loaded."""

    mode: PairingMode = "enforce"
    """``enforce``: evidence that is missing or does not fit refuses a version. ``warn``: it is only reported."""
    allowed_data: tuple[str, ...] = ()
    """Patterns of data versions (``2026-*``), or hashes of data, that models may be trained with; empty allows all."""


@dataclass(frozen=True)
class Surroundings:
    """What loads the version."""

    image: str = ""
    """Digest of the image, ``sha256:...``; empty when it is not known."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """Installed versions by distribution name, and that of ``python``."""


@dataclass(frozen=True)
class Pairing:
    """The result of the check."""

    verdict: Literal["passed", "warned", "refused"]
    reasons: tuple[str, ...] = ()
    advice: str = ""
    """How the version could be loaded all the same; empty when it never may."""

    @property
    def may_load(self) -> bool:
        """Whether the version may be loaded."""
        return self.verdict != "refused"

    def __str__(self) -> str:
        """Return it as one line of text."""
        advice = f". {self.advice}" if self.advice else ""
        return f"pairing {self.verdict}{': ' if self.reasons else ''}{'; '.join(self.reasons)}{advice}"


def check_pairing(
    version_tags: Mapping[str, str],
    run_tags: Mapping[str, str] | None,
    digest: str,
    here: Surroundings,
    rule: PairingRule,
) -> Pairing:
    """Check a version before a byte of it is loaded.

    A failed load check and files that are not the recorded ones always refuse the version.

    :param version_tags: tags of the version.
    :param run_tags: tags of its MLflow run; None when it has none, or it does not exist.
    :param digest: digest of the files that were fetched, ``sha256:<hex>``.
    :param here: the image that loads it.
    :param rule: what is checked.
    """
    check = read_load_check(version_tags)
    recorded = recorded_digests(version_tags)
    never = []
    if check is not None and check.is_unusable:
        never.append(f"its load check {check}")
    never += [f"its files have digest {digest}, and {other} is recorded" for other in recorded if other != digest]
    if never:
        return Pairing("refused", tuple(never))
    reasons = tuple(
        reason
        for reason in (
            _gate(version_tags, run_tags),
            _loading(check, here),
            _data(version_tags, run_tags, rule.allowed_data),
            "" if recorded else "the digest of its files is not recorded, so they may have changed",
        )
        if reason
    )
    if not reasons:
        return Pairing("passed")
    return Pairing("warned", reasons) if rule.mode == "warn" else Pairing("refused", reasons, _ADVICE)


def recorded_digests(version_tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return what is recorded of the version's files: by its copy, and by the load check that loaded them.

    :param version_tags: tags of the version.
    """
    check = read_load_check(version_tags)
    found = (version_tags.get(contract.TAG_MODEL_DIGEST, ""), check.digest if check is not None else "")
    return tuple(dict.fromkeys(digest for digest in found if digest))


def _gate(version_tags: Mapping[str, str], run_tags: Mapping[str, str] | None) -> str:
    differs = _difference(contract.TAG_GATE_VERDICT, "gate verdict", version_tags, run_tags)
    if differs:
        return differs
    verdict = version_tags.get(contract.TAG_GATE_VERDICT, "")
    return "" if verdict in OPENING else f"its gate verdict is {verdict or _ABSENT}"


def _difference(tag: str, what: str, version_tags: Mapping[str, str], run_tags: Mapping[str, str] | None) -> str:
    """Return how a tag of the version differs from its twin on the run; empty when both are equal or missing."""
    if run_tags is None:
        return f"its {what} cannot be compared with that of its run, which does not exist"
    of_version, of_run = version_tags.get(tag, ""), run_tags.get(tag, "")
    if of_version == of_run:
        return ""
    return f"its {what} is {of_version or _ABSENT}, and that of its run is {of_run or _ABSENT}"


def _loading(check: LoadCheck | None, here: Surroundings) -> str:
    if check is None:
        return "it has never passed a load check"
    if check.verdict != "passed":
        return f"its load check {check}"
    if here.image and here.image in check.image:
        return ""
    if not check.libraries:
        return f"its load check was made in another image ({check.image or 'unknown'}), with unknown libraries"
    differing = [
        f"{name} {wanted} there and {here.libraries.get(name, 'not installed')} here"
        for name, wanted in sorted(check.libraries.items())
        if here.libraries.get(name) != wanted
    ]
    return f"its load check was made with other libraries: {', '.join(differing)}" if differing else ""


def _data(version_tags: Mapping[str, str], run_tags: Mapping[str, str] | None, allowed: tuple[str, ...]) -> str:
    differs = _difference(contract.TAG_DATA_HASH, "data hash", version_tags, run_tags)
    if differs:
        return differs
    data_hash = version_tags.get(contract.TAG_DATA_HASH, "")
    if not data_hash:
        return f"the hash of its training data is not recorded (tag {contract.TAG_DATA_HASH})"
    label = version_tags.get(contract.TAG_DATA_VERSION, "")
    if allowed and data_hash not in allowed and not any(label and fnmatchcase(label, pattern) for pattern in allowed):
        return f"it was trained with data {label or data_hash}, which is not among the allowed ({', '.join(allowed)})"
    return ""
