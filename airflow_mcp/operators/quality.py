"""Judge a model in production: its logged predictions against labels that arrive later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from airflow_mcp.core import contract
from airflow_mcp.core.argument import choice, required_text
from airflow_mcp.core.data.dataset import data_tags, dataset_pin, public_uri
from airflow_mcp.core.data.logged_requests import CHAMPION_ROLES, LogRole
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.evaluation.evidence import ModelType
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.quality.policy import QualityPolicy
from airflow_mcp.core.quality.summary import (
    Baseline,
    ProbabilityOf,
    QualityRequest,
    QualitySummary,
    QualityVerdictGiven,
    QualityWindow,
    describe,
    read_quality_request,
)
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.operators.base import has_template
from airflow_mcp.operators.check import CheckOperator, Verdict
from airflow_mcp.registry.aliases import champion_of
from airflow_mcp.registry.evidence import find_baseline
from airflow_mcp.registry.recording import quality_event

if TYPE_CHECKING:
    from airflow.sdk import Context


class CheckQualityOperator(CheckOperator[QualityRequest, QualitySummary]):
    """Judge logged predictions by labels that arrived later, in windows of prediction time.

    A window is judged when its label delay has passed; it is inconclusive when too few of its predictions are labelled,
    or labels have arrived for some predictions more than for others. The check has an MLflow run of its own, which
    holds an HTML report and the summary as JSON. Latency, errors and rows unlike the training data are in the same
    report.

    XCom, also when the task fails: ``verdict`` of the newest judged window (``degraded``, ``not_degraded`` or
    ``inconclusive``), ``reason``, ``windows`` (``name``, ``verdict`` and ``end`` of each judged window that the present
    champion has mostly answered, oldest first: ``quality_windows`` of
    :class:`~airflow_mcp.operators.retrain.RetrainTriggerOperator`),
    ``labelled_share``, ``metrics`` (measured in that window), ``estimated_metrics`` (estimated without labels; empty
    when nothing may be estimated), ``run_id`` and ``report`` (artifact path of the HTML report).

    :param experiment_name: MLflow experiment of the checks; created when it does not exist (templated).
    :param model_name: registered model (templated).
    :param requests: prediction log of the model server: file, folder, glob or URL (templated).
    :param labels: tables of labels: an address, pinned data ``{uri, version, hash}``, or a list of these (templated).
    :param model_type: ``classifier`` or ``regressor``.
    :param policy: limits, windows and label delay, as a :class:`~airflow_mcp.core.quality.policy.QualityPolicy` or a
        mapping of its fields; durations may be ISO 8601, such as ``P7D`` (templated).
    :param keys: columns that name the entity in both tables; empty joins by ``request_id``, and by ``row`` if the
        labels have it.
    :param label_column: column of the labels with the label.
    :param label_time_column: column of the labels with the time at which each became known; None when there is none.
    :param positive_label: of two classes, the positive one; None takes the greater.
    :param probability: what the log's column ``probability`` holds: the probability of the ``positive`` or of the
        ``predicted`` class; empty does not use it.
    :param segments: columns of the log; metrics are repeated for each of their values.
    :param roles: roles whose answers are judged.
    :param as_of: time of the check, ISO 8601 with an offset; None takes the time from which the Dag run may start
        (templated).
    :param on_inconclusive: ``fail`` or ``skip`` the task, or ``continue`` with that verdict in XCom. The report is kept
        and XCom is pushed in any case.
    """

    template_fields: Sequence[str] = (*CheckOperator.template_fields, "requests", "labels", "policy", "as_of")
    ui_color = "#e6dcf7"
    step = "quality"
    kind = contract.KIND_QUALITY_CHECK
    called = "quality check"
    concerns = "model"

    def __init__(
        self,
        *,
        requests: str,
        labels: Any,
        model_type: ModelType,
        policy: QualityPolicy | Mapping[str, Any],
        keys: Sequence[str] = (),
        label_column: str = "label",
        label_time_column: str | None = None,
        positive_label: str | int | float | bool | None = None,
        probability: ProbabilityOf = "",
        segments: Sequence[str] = (),
        roles: Sequence[LogRole] = CHAMPION_ROLES,
        as_of: datetime | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.requests = requests
        self.labels = labels
        self.model_type = choice("model_type", model_type, get_args(ModelType))
        self.policy = policy
        self.keys, self.segments, self.roles = keys, segments, roles
        self.label_column, self.label_time_column = label_column, label_time_column
        self.positive_label = positive_label
        self.probability = choice("probability", probability, get_args(ProbabilityOf))
        self.as_of = as_of
        if not has_template(policy):  # a wrong argument is refused when the Dag is parsed
            self._request("log", (DatasetPin(uri="labels"),), "2000-01-01T00:00:00Z", None)

    def asked(self, context: Context) -> QualityRequest:
        """Return the request, with what the champion's evaluation measured.

        :raises InvalidArgumentError: when an argument is wrong.
        """
        name = required_text("model_name", self.model_name)
        as_of = self.as_of if self.as_of is not None else context["dag_run"].run_after
        champion = champion_of(self.hook, name)
        baseline = find_baseline(self.hook, champion) if champion is not None else None
        return self._request(required_text("requests", self.requests), _pins(self.labels), as_of, baseline)

    def read_data(self, request: QualityRequest) -> tuple[DatasetPin, ...]:
        """Return the labels, whose credentials the step needs."""
        return request.labels

    def data_tags(self, request: QualityRequest) -> Mapping[str, str]:
        """Return the tags that name the labels and the log."""
        return {**data_tags(request.labels[0]), contract.TAG_REQUESTS: public_uri(request.requests)}

    def collect(self, run: Run) -> QualitySummary:
        """Read the summary from a run.

        :raises ResultMissingError: when it is missing, or about another check.
        """
        key = run.tags.get(contract.TAG_IDENTITY, "")
        parse = partial(parse_document, QualitySummary)
        return self.read_result(run.run_id, key, contract.ARTIFACT_QUALITY_SUMMARY, parse, self.called)

    def verdict_of(self, summary: QualitySummary) -> Verdict:
        """Return the verdict on the newest judged window."""
        return Verdict(summary.verdict, summary.reason)

    def outcome_of(self, summary: QualitySummary) -> dict[str, Any]:
        """Return what is pushed to XCom."""
        newest = summary.judged[-1]
        return {
            "verdict": summary.verdict,
            "reason": summary.reason,
            "windows": [_passed_on(window) for window in summary.judged if _counts(window, summary)],
            "labelled_share": newest.labelled_share,
            "metrics": newest.metrics,
            "estimated_metrics": newest.estimated,
            "run_id": summary.run_id,
            "report": contract.ARTIFACT_QUALITY_REPORT_HTML,
        }

    def show(self, summary: QualitySummary) -> None:
        """Write the verdict and every window to the task log."""
        for line in describe(summary):
            self.log.info("%s", line)

    def record_verdict(self, context: Context, summary: QualitySummary) -> None:
        """Record the verdict in the audit log, if there is one."""
        self.record(context, partial(quality_event, self.model_name, summary))

    def _request(
        self, requests: str, labels: tuple[DatasetPin, ...], as_of: datetime | str, baseline: Baseline | None
    ) -> QualityRequest:
        return read_quality_request(
            self.policy,
            model_name=self.model_name,
            requests=requests,
            roles=tuple(self.roles),
            labels=labels,
            keys=tuple(self.keys),
            label_column=self.label_column,
            label_time_column=self.label_time_column or "",
            model_type=self.model_type,
            positive_label=self.positive_label,
            probability=self.probability,
            segments=tuple(self.segments),
            as_of=as_of,
            baseline=baseline,
        )


def _pins(labels: Any) -> tuple[DatasetPin, ...]:
    items = list(labels) if isinstance(labels, Sequence) and not isinstance(labels, str) else [labels]
    if not items:
        raise InvalidArgumentError("labels must name at least one table; got an empty list. Nothing was judged")
    # A table of labels grows, so its address alone is enough; what was read is in the summary.
    given = ({"uri": item} if isinstance(item, str) else item for item in items)
    return tuple(dataset_pin("labels", item, hash_or_version=False) for item in given)


def _counts(window: QualityWindow, summary: QualitySummary) -> bool:
    """Return whether a window is about the champion: with late labels the newest may be about its predecessor."""
    return summary.baseline is None or window.is_mostly_of(summary.baseline.version)


def _passed_on(window: QualityWindow) -> dict[str, str]:
    given = QualityVerdictGiven(name=window.name, verdict=window.verdict or "inconclusive", end=window.end)
    return given.model_dump(mode="json")
