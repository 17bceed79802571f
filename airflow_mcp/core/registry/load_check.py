"""Whether a registered version loads and answers: request, findings, verdict, and how the version's tags keep it.

``failed`` means that the version itself is at fault: it fails in the environment that it was logged with. Only then it
is unusable. ``error`` says nothing about the version: the image lacks a module or has other library versions than the
model records, or something other than the model failed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from airflow_mcp.core import contract
from airflow_mcp.core.document import Document
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.registry.moves import storable_text
from airflow_mcp.exceptions import EvidenceError, LoadCheckFailedError

LOAD_CHECK_SCHEMA: Literal["airflow_mcp/load_check/1"] = "airflow_mcp/load_check/1"
LoadVerdict = Literal["passed", "failed", "inconclusive", "error"]
FindingName = Literal["files", "loads", "answers", "rows", "finite", "signature"]
ROLLBACK_CHECK_AGE = timedelta(hours=24)
"""Maximum age of the load check of a version to roll back to: its files may have been removed since."""
_REASON_LIMIT = 1500
"""Characters of the reason that a tag of the version keeps; the report has the whole reason."""


class LoadCheckRequest(Document):
    """What ``python -m airflow_mcp.work load-check`` is asked to do."""

    identity: str
    run_id: str
    """MLflow run of the check: everything is logged there."""
    model_name: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(pattern=r"^[1-9]\d*$")]
    require_example: bool = True
    """Whether a model without an input example, which cannot be asked anything, is inconclusive instead of passed."""

    @property
    def model_uri(self) -> str:
        """Address from which serving loads the version."""
        return f"models:/{self.model_name}/{self.version}"


class LoadFinding(Document):
    """The result of one part of the check."""

    name: FindingName
    """``files``: the files exist. ``loads``: MLflow loads them. ``answers``: the model answers its input example.
    ``rows``: one answer per row. ``finite``: no answer is missing, NaN or infinite. ``signature``: the answers have the
    recorded signature."""
    holds: bool | None
    """None: it could not be checked; the note says why."""
    note: str = ""
    is_of_surroundings: bool = False
    """If it does not hold: whether the cause lies outside the version, whatever the libraries."""


class LoadCheckReport(Document):
    """Result of a check, stored as :data:`~airflow_mcp.core.contract.ARTIFACT_LOAD_CHECK`."""

    schema_: Literal["airflow_mcp/load_check/1"] = Field(default=LOAD_CHECK_SCHEMA, alias="schema")
    identity: str
    run_id: str
    model_name: str
    version: str
    verdict: LoadVerdict
    reason: str
    findings: tuple[LoadFinding, ...]
    rows: int | None = None
    """Rows of the input example; None when the example is one input, or there was none."""
    download_seconds: float | None = None
    load_seconds: float | None = None
    answer_seconds: float | None = None
    memory_before_bytes: int | None = None
    """Resident memory of the process before the model and its libraries were loaded; MLflow is included."""
    memory_peak_bytes: int | None = None
    """Peak resident memory of the process until the model had answered."""
    digest: str = ""
    """``sha256:`` of the sorted manifest of the files that were loaded; empty when there were none."""
    unmet_requirements: tuple[str, ...] = ()
    """Recorded requirements of the model that the libraries here do not meet."""
    created_at: str
    """ISO 8601, UTC."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Versions of Python and of the libraries that loaded the model."""


def judge(
    findings: Sequence[LoadFinding], unmet_requirements: Sequence[str], *, require_example: bool
) -> tuple[LoadVerdict, str]:
    """Return the verdict that follows from the findings.

    :param findings: in the order in which they were made.
    :param unmet_requirements: recorded requirements that the libraries here do not meet.
    :param require_example: whether a model without an input example is inconclusive.
    :return: the verdict, and its reason.
    """
    broken = next((finding for finding in findings if finding.holds is False), None)
    if broken is not None:
        return _blame(broken, unmet_requirements)
    found = {finding.name: finding for finding in findings}
    if {"files", "loads", "answers"} - found.keys():
        return "inconclusive", "the check did not finish"
    notes = "; ".join(finding.note for finding in findings if finding.note)
    if found["answers"].holds is None:
        return ("inconclusive", notes) if require_example else ("passed", f"it loads. {notes}")
    return "passed", f"it loads and answers its input example{f' ({notes})' if notes else ''}"


def _blame(broken: LoadFinding, unmet: Sequence[str]) -> tuple[LoadVerdict, str]:
    if broken.is_of_surroundings:
        return "error", f"{broken.note}. This says nothing about the version"
    if unmet and broken.name != "files":
        differs = "; ".join(unmet)
        return "error", (
            f"{broken.note}. The libraries here are not the ones that the model records ({differs}), so this says "
            "nothing about the version: check it in an image that has them"
        )
    return "failed", broken.note


@dataclass(frozen=True)
class LoadCheck:
    """The latest load check of a version, as the version's tags keep it."""

    verdict: LoadVerdict
    reason: str
    at: str = ""
    """ISO 8601, UTC."""
    run_id: str = ""
    """MLflow run that holds the report."""
    image: str = ""
    """Container image with its digest; empty for the local runtime."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    """``sha256:`` of the sorted manifest of the files that were loaded; empty in older records."""
    memory_bytes: int = 0
    """Memory that the model took with its libraries; 0 when that was not measured."""

    @property
    def is_unusable(self) -> bool:
        """Whether the version itself is at fault."""
        return self.verdict == "failed"

    def to_tags(self) -> dict[str, str]:
        """Return its tags, in the order in which they must be set."""
        record = asdict(self) | {"reason": storable_text(self.reason)[:_REASON_LIMIT]}
        return {
            contract.TAG_LOAD_CHECK_RECORD: json.dumps(record, sort_keys=True, ensure_ascii=False),
            contract.TAG_LOAD_CHECK: self.verdict,
        }

    def __str__(self) -> str:
        """Return it as one line of text."""
        where = f" in {self.image}" if self.image else ""
        return f"{self.verdict} at {self.at}{where}: {self.reason}" if self.at else f"{self.verdict}: {self.reason}"


def of_report(report: LoadCheckReport, run: Run) -> LoadCheck:
    """Return the part of a report that the version's tags keep.

    :param report: the report.
    :param run: its MLflow run, whose tags name the image.
    """
    image, digest = (run.tags.get(tag, "") for tag in (contract.TAG_IMAGE, contract.TAG_IMAGE_DIGEST))
    named = f"{image}@{digest}" if image and digest else image or digest
    return LoadCheck(
        verdict=report.verdict,
        reason=report.reason,
        at=report.created_at,
        run_id=report.run_id,
        image=named,
        libraries=dict(report.environment),
        digest=report.digest,
        memory_bytes=report.memory_peak_bytes or 0,
    )


def read_load_check(tags: Mapping[str, str]) -> LoadCheck | None:
    """Return the latest load check of a version.

    The check has two tags, written one after the other. If two checks ran at once or a check was killed, the tags may
    disagree: then the worse verdict counts until the version is checked again.

    :param tags: tags of the version.
    :return: None when the version was never checked.
    """
    verdict, text = tags.get(contract.TAG_LOAD_CHECK), tags.get(contract.TAG_LOAD_CHECK_RECORD)
    if verdict is None and text is None:
        return None
    record = _read_record(text)
    if record is not None and record.verdict == verdict:
        return record
    verdicts = (verdict, record.verdict if record else None)
    reason = (
        f"its tags disagree ({verdict or 'none'}, {verdicts[1] or 'none'}): a check was interrupted; check it again"
    )
    return LoadCheck("failed" if "failed" in verdicts else "inconclusive", reason)


def _read_record(text: str | None) -> LoadCheck | None:
    try:
        fields: Any = json.loads(text or "null")
        record = LoadCheck(**fields) if isinstance(fields, dict) else None
    except (ValueError, TypeError):
        return None
    return record if record is not None and record.verdict in get_args(LoadVerdict) else None


def supersedes(new: LoadCheck, old: LoadCheck | None) -> bool:
    """Return whether a check replaces the one in the version's tags: not an error, and not an older check.

    :param new: the check that ended.
    :param old: the check in the tags; None when there is none.
    """
    if new.verdict == "error":
        return False
    times = [_time(check.at) for check in (new, old) if check is not None]
    return len(times) == 1 or times[0] is None or times[1] is None or times[0] >= times[1]


def age_limit_passed(check: LoadCheck, oldest: datetime) -> bool:
    """Return whether a check is older than the limit, or undated.

    :param check: the check.
    :param oldest: the limit, with a time zone.
    """
    at = _time(check.at)
    return at is None or at < oldest


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else None


def require_ready(version: ModelVersion) -> None:
    """Check that MLflow has finished registering a version.

    :raises EvidenceError: naming its status.
    """
    if version.status != "READY":
        raise EvidenceError(f"version {version.version} of {version.name!r} is {version.status}, not READY")


@dataclass(frozen=True)
class LoadCheckRule:
    """What a version's load check must say before an alias may point at the version.

    A version that failed its load check never gets an alias. The rule decides about a version that did not fail: only
    the alias ``champion`` has such a rule, every other alias has :data:`NOTHING_REQUIRED`.
    """

    is_required: bool = True
    """Whether the version must have passed a load check."""
    max_age: timedelta | None = None
    """How long ago it may have passed; None: at any time."""

    def require(self, version: ModelVersion, now: datetime) -> None:
        """Check that a version may get the alias.

        :param version: the version as it is now.
        :param now: present time, with a time zone.
        :raises EvidenceError: when it is not READY, or has not passed a recent load check although one is required.
        :raises LoadCheckFailedError: when its load check failed.
        """
        what = f"version {version.version} of {version.name!r}"
        require_ready(version)
        check = read_load_check(version.tags)
        if check is not None and check.is_unusable:
            raise LoadCheckFailedError(f"{what} is unusable, its load check {check}; nothing was moved. {_CHECK_AGAIN}")
        if not self.is_required:
            return
        if check is None:
            raise EvidenceError(f"{what} has never passed a load check; nothing was moved. {_CHECK_FIRST}")
        if check.verdict != "passed":
            raise EvidenceError(f"{what} has not passed its load check ({check}); nothing was moved. {_CHECK_FIRST}")
        if self.max_age is not None and age_limit_passed(check, now - self.max_age):
            raise EvidenceError(
                f"{what} passed its load check at {check.at or 'an unknown time'}, longer ago than {self.max_age}, so "
                f"it may no longer load; nothing was moved. {_CHECK_FIRST}"
            )

    def describe(self, version: ModelVersion | None) -> str:
        """Return what is known of a version's load check, for the record of its move; empty without a version."""
        if version is None:
            return ""
        check = read_load_check(version.tags)
        known = f"{check.verdict} at {check.at}" if check else "never checked"
        return known if self.is_required else f"not required; {known}"


NOTHING_REQUIRED = LoadCheckRule(is_required=False)
_CHECK_FIRST = (
    "Run LoadCheckOperator first, or set require_load_check=False (--no-load-check) to go without a load check"
)
_CHECK_AGAIN = "Once a later LoadCheckOperator passes, the version is usable again"


def why_unusable(version: ModelVersion) -> str:
    """Return why a version is known to be unusable.

    :param version: a version with its tags.
    :return: the reason; empty when it may be usable.
    """
    if version.status != "READY":
        return f"it is {version.status}, not READY"
    check = read_load_check(version.tags)
    return f"its load check {check}" if check is not None and check.is_unusable else ""
