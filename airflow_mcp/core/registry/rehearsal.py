"""Whether the way back of a model was rehearsed and took no longer than allowed, and how the version's tags keep it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from airflow_mcp.core import contract
from airflow_mcp.core.document import Document, dump_document, parse_document
from airflow_mcp.core.mlflow_entities import ModelVersion
from airflow_mcp.core.registry.load_check import LoadCheckReport, LoadVerdict
from airflow_mcp.exceptions import EvidenceError

Way = Literal["previous_champion", "stable"]
REHEARSAL_NOT_PASSED = f"tags.`{contract.TAG_REHEARSAL}` != 'passed'"
"""MLflow's filter for versions whose latest rehearsal did not pass; those never rehearsed lack the tag."""
_REASON_LIMIT = 1500
"""Characters of the reason that a tag of the version keeps; the report has the whole reason."""


class Rehearsal(Document):
    """What a rehearsal found, stored as :data:`~airflow_mcp.core.contract.ARTIFACT_REHEARSAL` and as a tag."""

    schema_: Literal["airflow_mcp/rehearsal/1"] = Field(default="airflow_mcp/rehearsal/1", alias="schema")
    model_name: str
    version: str
    """The version that the way leads to."""
    champion: str
    """The champion that the way leads away from; the rehearsal says nothing about another one."""
    way: Way
    verdict: LoadVerdict
    reason: str
    seconds: float | None
    """From the download of the files to the answer to the input example; None when that was not measured."""
    budget_seconds: Annotated[float, Field(gt=0)]
    """Longest time that is allowed."""
    at: str
    """ISO 8601, UTC."""
    run_id: str
    """MLflow run of the rehearsal."""

    def to_tags(self) -> dict[str, str]:
        """Return its tags, in the order in which they must be set."""
        kept = self.model_copy(update={"reason": self.reason[:_REASON_LIMIT]})
        return {
            contract.TAG_REHEARSAL_RECORD: dump_document(kept, indent=None),
            contract.TAG_REHEARSAL: self.verdict,
        }

    def __str__(self) -> str:
        """Return it as one line of text."""
        return f"{self.verdict} at {self.at}: {self.reason}"


def judge_rehearsal(check: LoadCheckReport, budget: timedelta, refusal: str) -> tuple[LoadVerdict, str, float | None]:
    """Return verdict and reason of a rehearsal, and its seconds.

    :param check: the load check of the version.
    :param budget: longest time from the download to the answer.
    :param refusal: why a rollback would be refused now; empty when it would not.
    """
    parts = (check.download_seconds, check.load_seconds, check.answer_seconds)
    seconds = None if None in parts else sum(part for part in parts if part is not None)
    if check.verdict != "passed":
        return check.verdict, check.reason, seconds
    if seconds is None:
        return "inconclusive", "it loads, but how long it takes until it answers was not measured", None
    took = f"it answers {seconds:.1f} s after the download of its files began, {budget.total_seconds():g} s are allowed"
    if seconds > budget.total_seconds():
        return "failed", took, seconds
    if refusal:
        return "failed", f"{took}, but a rollback would be refused: {refusal}", seconds
    return "passed", took, seconds


def read_rehearsal(tags: Mapping[str, str]) -> Rehearsal | None:
    """Return the latest rehearsal of a version; None when it was never rehearsed, or the record cannot be read.

    :param tags: tags of the version.
    """
    text = tags.get(contract.TAG_REHEARSAL_RECORD, "")
    try:
        return parse_document(Rehearsal, text, f"tag {contract.TAG_REHEARSAL_RECORD!r}") if text else None
    except EvidenceError:
        return None


def failed_rehearsal(model_name: str, champion: str | None, flagged: Mapping[str, ModelVersion]) -> Rehearsal | None:
    """Return the rehearsal of a champion's way back that did not pass.

    :param model_name: registered model.
    :param champion: its champion now; rehearsals of earlier champions do not count.
    :param flagged: versions of the model whose latest rehearsal did not pass, by number.
    """
    found = [read_rehearsal(version.tags) for version in flagged.values()]
    return next(
        (each for each in found if each is not None and (each.model_name, each.champion) == (model_name, champion)),
        None,
    )
