"""Evaluate a candidate and the champion on the same pinned data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from airflow_mcp.core import contract
from airflow_mcp.core.argument import NO_CHAMPION, choice, flag, read_metric_list, required_text, rows_to_draw
from airflow_mcp.core.data.dataset import data_name, dataset_pin
from airflow_mcp.core.document import dump_document, parse_document, plain
from airflow_mcp.core.evaluation.evidence import (
    METRICS,
    ComparisonRequest,
    EvaluationEvidence,
    EvaluationRequest,
    MetricComparison,
    ModelType,
    ModelUnderTest,
)
from airflow_mcp.core.identity import identity
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.pipeline.reuse import require_evidence, require_reusable
from airflow_mcp.core.workload.definition import Workload, WorkloadFile
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError, ResultMissingError
from airflow_mcp.links.mlflow import MlflowRunLink
from airflow_mcp.operators.base import require_active
from airflow_mcp.operators.workload import WorkloadOperator
from airflow_mcp.registry.aliases import champion_of
from airflow_mcp.registry.evidence import find_evidence

if TYPE_CHECKING:
    from airflow.sdk import Context


class EvaluateModelOperator(WorkloadOperator):
    """Evaluate a candidate, and the champion if there is one, on one pinned dataset.

    All results are stored in the candidate's MLflow run: metrics, single-row latency, metrics per slice, and the
    prediction of every row as Parquet. A retry that finds complete evidence of the same evaluation does not measure
    again.

    Without a dataset the evidence is *self-reported*: its metrics are those that the training script logged to the run,
    and latency is measured on the model's input example, if it has one. Evidence and gate report are marked as
    self-reported, and the gate refuses rules that compare with the champion.

    XCom: ``run_id``, ``model_uri``, ``identity``, ``champion_version`` (``none`` when there is no champion),
    ``rows`` and ``metrics`` of the candidate, ``self_reported``.

    :param run_id: the candidate's MLflow run (templated).
    :param model_uri: the candidate, for example ``models:/<model id>`` (templated).
    :param model_name: registered model whose champion is evaluated too (templated).
    :param dataset: pinned data, ``{uri, version, hash}``, that neither model was trained on (templated). None takes
        the metrics that the training script logged.
    :param target: name of the label column; required with a dataset.
    :param model_type: ``classifier`` or ``regressor``; required with a dataset.
    :param positive_label: the positive class; None takes the greater of two classes.
    :param slices: columns; the metrics are also computed for each of their values.
    :param comparisons: metrics in which candidate and champion are compared row by row, for the gate's
        ``significance`` rules: names, or mappings of ``metric``, ``method`` (``auto``, ``bootstrap``, ``mcnemar``,
        ``delong``), ``confidence`` (0.95), ``resamples`` (10,000) and ``seed`` (0).
    :param latency_calls: how many rows are predicted one by one to measure latency.
    :param importance_rows: rows (0 to 1,000,000) to measure the importance of the candidate's features with, for the
        weights of drift checks; each feature takes 5 predictions of all of them. 0 measures no importance.
    :param reuse: true returns the evidence that the run already has and measures nothing; evidence about another
        model or other data is refused (templated).
    """

    template_fields: Sequence[str] = (
        *WorkloadOperator.template_fields,
        "run_id",
        "model_uri",
        "model_name",
        "dataset",
        "reuse",
    )
    operator_extra_links = (MlflowRunLink(),)
    refusal_exit_code = contract.EXIT_REFUSED
    ui_color = "#fff4d6"
    owns_run = False  # results go to the candidate's run

    def __init__(
        self,
        *,
        run_id: str,
        model_uri: str,
        model_name: str,
        dataset: Any = None,
        target: str = "",
        model_type: ModelType | None = None,
        positive_label: str | int | float | bool | None = None,
        slices: Sequence[str] = (),
        comparisons: Sequence[str | Mapping[str, Any]] = (),
        latency_calls: int = 200,
        importance_rows: int = 0,
        reuse: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.model_uri = model_uri
        self.model_name = model_name
        self.dataset = dataset
        self.target = target
        self.model_type = model_type
        self.positive_label = positive_label
        self.slices = slices
        self.comparisons = read_metric_list(ComparisonRequest, "comparisons", comparisons)
        self.latency_calls = latency_calls
        self.importance_rows = rows_to_draw("importance_rows", importance_rows)
        self.reuse = reuse
        # Decided here, before templates are rendered: a missing XCom must not turn into self-reported metrics.
        self._self_reported = dataset is None
        if dataset is not None:
            required_text("target", target)
            choice("model_type", model_type, get_args(ModelType))
            self._check_comparisons()
        elif target or model_type or slices or comparisons or importance_rows or positive_label is not None:
            raise InvalidArgumentError(
                "target, model_type, positive_label, slices, comparisons and importance_rows have no effect without a "
                "dataset. Pass a dataset, or leave them out"
            )
        if latency_calls < 1:
            raise InvalidArgumentError(f"latency_calls must be at least 1; got {latency_calls!r}")

    def _check_comparisons(self) -> None:
        known = METRICS[self.model_type] if self.model_type else ()
        wrong = [asked.metric for asked in self.comparisons if asked.metric not in known]
        if wrong:
            raise InvalidArgumentError(
                f"comparisons must name metrics of a {self.model_type}: {', '.join(known)}; got {', '.join(wrong)}"
            )

    def act(self, context: Context) -> dict[str, Any]:
        """Find the evidence of an earlier try, or evaluate.

        :raises EvidenceError: when the candidate's run is deleted, or the evidence to reuse is missing or about
            something else.
        :raises WorkloadError: when the evaluation fails or leaves no evidence.
        """
        run = self.hook.get_run(required_text("run_id", self.run_id))
        require_active(run)
        self.show_run(run)
        if flag("reuse", self.reuse):
            return self._result(self._reused(run))
        request = self._request(context, run)
        evidence = self._existing(request)
        if evidence is not None:
            self.forget_workload(context, request.identity)
            return self._result(evidence)
        return self.run_workload(context, run, request.identity, lambda: self._describe(context, run, request))

    def conclude(self, context: Context, run: Run, identity: str) -> dict[str, Any]:
        """Read the evidence back from the run.

        :raises ResultMissingError: when it is missing, or about another evaluation.
        """
        require_active(run)
        return self._result(self._collect(run.run_id, identity))

    def _describe(self, context: Context, run: Run, request: EvaluationRequest) -> Workload:
        return self.workload(
            context,
            command=self.runtime_command("evaluate"),
            run=run,
            identity=request.identity,
            model_name=self.model_name,
            files=(WorkloadFile(contract.ENV_REQUEST_PATH, "request.json", dump_document(request)),),
            reads=(request.dataset,),
        )

    def _result(self, evidence: EvaluationEvidence) -> dict[str, Any]:
        self._log_metrics(evidence)
        return {
            "run_id": evidence.run_id,
            "model_uri": evidence.candidate.model_uri,
            "identity": evidence.identity,
            "champion_version": evidence.champion.version if evidence.champion else NO_CHAMPION,
            "rows": evidence.rows,
            "metrics": dict(evidence.candidate.metrics),
            "self_reported": evidence.self_reported,
        }

    def _request(self, context: Context, run: Run) -> EvaluationRequest:
        pin = None if self._self_reported else dataset_pin("dataset", self.dataset)
        model_uri = required_text("model_uri", self.model_uri)
        champion = self._champion()
        measured = {
            "model_uri": model_uri,
            "champion": champion.model_uri if champion else NO_CHAMPION,
            "data": data_name(pin),
            "target": self.target,
            "model_type": self.model_type,
            "positive_label": self.positive_label,
            "slices": list(self.slices),
            "comparisons": [plain(asked) for asked in self.comparisons],
            "latency_calls": self.latency_calls,
            **({"importance_rows": self.importance_rows} if self.importance_rows else {}),
        }
        return EvaluationRequest(
            identity=identity(self.task_key(context), measured),
            run_id=run.run_id,
            candidate=ModelUnderTest(model_uri=model_uri, run_id=run.run_id),
            champion=champion,
            dataset=pin,
            target=self.target,
            model_type=self.model_type,
            positive_label=self.positive_label,
            slices=tuple(self.slices),
            comparisons=self.comparisons,
            latency_calls=self.latency_calls,
            importance_rows=self.importance_rows,
        )

    def _champion(self) -> ModelUnderTest | None:
        """Pin the champion's version, which gate and promotion are then held to."""
        name = required_text("model_name", self.model_name)
        version = champion_of(self.hook, name)
        if version is None:
            self.log.info("%s has no champion yet; only the candidate is evaluated", name)
            return None
        self.log.info("The champion of %s is version %s", name, version.version)
        return ModelUnderTest(model_uri=version.uri, run_id=version.run_id, version=version.version)

    def _reused(self, run: Run) -> EvaluationEvidence:
        """Return the evidence of an earlier Dag run if it is about this model and data."""
        require_reusable(run, model_name=required_text("model_name", self.model_name))
        evidence = find_evidence(self.hook, run.run_id)
        if evidence is None:
            raise EvidenceError(
                f"MLflow run {run.run_id} has no {contract.ARTIFACT_EVIDENCE} to reuse. Nothing was measured; start at "
                "the stage evaluate"
            )
        pin = None if self._self_reported else dataset_pin("dataset", self.dataset)
        require_evidence(evidence, run_id=run.run_id, model_uri=required_text("model_uri", self.model_uri), pin=pin)
        self.log.info("The evidence of %s is reused; nothing was measured", evidence.created_at)
        return evidence

    def _existing(self, request: EvaluationRequest) -> EvaluationEvidence | None:
        try:
            evidence = self._collect(request.run_id, request.identity)
        except (ResultMissingError, EvidenceError):
            return None
        self.log.info("An earlier try of this task already measured; its evidence is used")
        return evidence

    def _collect(self, run_id: str, expected: str) -> EvaluationEvidence:
        return self.read_result(
            run_id, expected, contract.ARTIFACT_EVIDENCE, partial(parse_document, EvaluationEvidence), "evaluation"
        )

    def _log_metrics(self, evidence: EvaluationEvidence) -> None:
        champion = evidence.champion.metrics if evidence.champion else {}
        if evidence.dataset is None:
            self.log.warning("Self-reported: the training script logged these metrics; only latency was measured")
        else:
            self.log.info("%d rows of %s", evidence.rows, evidence.dataset.uri)
        self.log.info("%-20s %14s %14s", "metric", "candidate", "champion")
        for name, value in sorted(evidence.candidate.metrics.items()):
            other = f"{champion[name]:.6g}" if name in champion else "-"
            self.log.info("%-20s %14.6g %14s", name, value, other)
        for made in evidence.comparisons:
            self.log.info("%-20s %s", made.metric, _in_words(made))
        for name, reason in sorted(evidence.candidate.undefined.items()):
            self.log.info("%-20s undefined: %s", name, reason)


def _in_words(made: MetricComparison) -> str:
    if made.difference is None or made.low is None or made.high is None:
        return f"not compared: {made.note}"
    interval = f"{made.confidence:.4g} interval [{made.low:+.4g}, {made.high:+.4g}]"
    return f"candidate - champion = {made.difference:+.4g}, {interval} by {made.method}, {made.rows} rows"
