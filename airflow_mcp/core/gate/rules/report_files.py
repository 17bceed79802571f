"""Reports of earlier steps (coverage, findings): where they are, and what was fetched."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, NamedTuple, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from airflow_mcp.core.document import Document
from airflow_mcp.core.gate.rules.verdicts import Verdict
from airflow_mcp.exceptions import EvidenceError

T = TypeVar("T")
MAX_REPORT_BYTES = 64 * 1024 * 1024


class ReportFile(Document):
    """Where a report is: an artifact of an MLflow run, a file of this machine, or an object."""

    run_id: str | None = None
    """MLflow run that holds the report; None, from a task that pushed no XCom, means that there is no report."""
    path: Annotated[str, Field(min_length=1)]
    """Path of the artifact. Without a run: absolute path of a file, or URI of an object."""
    conn_id: str | None = None
    """Airflow connection that opens the object."""

    @model_validator(mode="after")
    def _be_somewhere(self) -> Self:
        is_absolute = self.path.startswith("/") or "://" in self.path
        if self.is_artifact == is_absolute:
            where = "relative, with a run_id" if self.is_artifact else "absolute or a URI, or have a run_id"
            raise ValueError(f"path is {self.path!r}; it must be {where}")
        if self.conn_id is not None and "://" not in self.path:
            raise ValueError("conn_id is for URIs of objects")
        return self

    @property
    def is_artifact(self) -> bool:
        """Whether the report is an artifact of an MLflow run."""
        return "run_id" in self.model_fields_set

    def __str__(self) -> str:
        """Return the path or URI, which is the same for every run."""
        return self.path


def _short_form(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


Report = Annotated[ReportFile, BeforeValidator(_short_form)]
"""A mapping, or just the path or URI."""


class FetchedReport(NamedTuple):
    """A fetched report, or the reason why there is none."""

    content: bytes | None
    """None when there is no report or it cannot be read."""
    problem: str = ""
    commit: str = ""
    """Commit that the report is about, from the tags of its run; empty when not recorded."""


class ReportProblem(Exception):  # noqa: N818  (it becomes a verdict)
    """A report cannot be judged."""

    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict


def content_of(file: ReportFile, fetched: FetchedReport | None, commit: str) -> bytes:
    """Return the content of a report.

    :param file: the report.
    :param fetched: the result of fetching it.
    :param commit: commit of the candidate's code, which the report must be about; empty skips the check.
    :raises ReportProblem: inconclusive when there is none; an error when it is about other code.
    """
    if fetched is None or fetched.content is None:
        raise ReportProblem(Verdict.INCONCLUSIVE, fetched.problem if fetched else f"{file} was not fetched")
    if commit and fetched.commit and commit != fetched.commit:
        raise ReportProblem(
            Verdict.ERROR, f"{file} is about commit {fetched.commit}, the candidate was made from {commit}"
        )
    return fetched.content


def once(read: Callable[[], T]) -> Callable[[], T]:
    """Return a function that reads a report once and repeats the result, or the same failure, on later calls.

    :param read: reads the report.
    """

    @cache
    def tried() -> tuple[list[T], Exception | None]:
        try:
            return [read()], None
        except (ReportProblem, EvidenceError) as error:
            return [], error

    def give() -> T:
        found, error = tried()
        if error is not None:
            raise error
        return found[0]

    return give
