"""Compare current data with reference data; the result is an MLflow run with the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mcp.core import contract
from airflow_mcp.core.dataset import dataset_pin, public_uri
from airflow_mcp.core.drift import DriftPolicy
from airflow_mcp.core.evidence import DatasetPin, DriftRequest, DriftSummary, dump_document, parse_document
from airflow_mcp.core.identity import fingerprint, identity
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.workload import Workload, WorkloadFile
from airflow_mcp.exceptions import DatasetError, EvidenceError, MlflowNotFoundError, ResultMissingError
from airflow_mcp.hooks.aliases import champion_of
from airflow_mcp.links.mlflow import MlflowRunLink
from airflow_mcp.operators.base import choice, required_text
from airflow_mcp.operators.workload import WorkloadOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

CHAMPION = "champion"
ON_INCONCLUSIVE = ("fail", "continue")


class DriftCheckOperator(WorkloadOperator):
    """Check whether current data has drifted from reference data, with Evidently.

    Method and threshold are pinned per column type and recorded in the report; Evidently never chooses by the
    number of rows. The check has an MLflow run of its own, which holds the HTML and JSON report.

    XCom, also when the task fails: ``verdict`` (``drifted``, ``not_drifted`` or ``inconclusive``), ``reason``,
    ``drift_share``, ``drifted_columns``, ``run_id`` and ``report`` (artifact path of the HTML report).

    :param experiment: MLflow experiment of the checks; created when missing (templated).
    :param model_name: registered model the data belongs to (templated).
    :param current: pinned data to check, ``{uri, version, hash}`` (templated).
    :param reference: pinned data to compare with, or ``champion``: the data that the champion was trained on, as
        its version records it (templated).
    :param columns: columns to compare; empty compares every column that is not ignored.
    :param ignored_columns: columns to leave out, for example the label.
    :param categorical_columns: columns to treat as categories whatever their type.
    :param numerical_method: test for numerical columns: ks, wasserstein, psi, jensenshannon or kl_div.
    :param numerical_threshold: a p-value drifts below it, a distance at or above it.
    :param categorical_method: test for categorical columns: chisquare, z, TVD, jensenshannon, psi or kl_div.
    :param categorical_threshold: as ``numerical_threshold``.
    :param drift_share: share of drifted columns (above 0, up to 1) from which on the data counts as drifted.
    :param min_rows: fewer rows than this in either dataset make the check inconclusive.
    :param on_inconclusive: ``fail`` the task (its report is kept), or ``continue`` with that verdict in XCom.
    """

    template_fields: Sequence[str] = ("experiment", "model_name", "current", "reference", "image", "env", "kubernetes")
    operator_extra_links = (MlflowRunLink(),)
    refusal_exit_code = contract.EXIT_REFUSED
    ui_color = "#e6dcf7"

    def __init__(
        self,
        *,
        experiment: str,
        model_name: str,
        current: Any,
        reference: Any = CHAMPION,
        columns: Sequence[str] = (),
        ignored_columns: Sequence[str] = (),
        categorical_columns: Sequence[str] = (),
        numerical_method: str = DriftPolicy.numerical_method,
        numerical_threshold: float = DriftPolicy.numerical_threshold,
        categorical_method: str = DriftPolicy.categorical_method,
        categorical_threshold: float = DriftPolicy.categorical_threshold,
        drift_share: float = DriftPolicy.drift_share,
        min_rows: int = DriftPolicy.min_rows,
        on_inconclusive: str = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.experiment = experiment
        self.model_name = model_name
        self.current = current
        self.reference = reference
        self.columns = columns
        self.ignored_columns = ignored_columns
        self.categorical_columns = categorical_columns
        self.on_inconclusive = choice("on_inconclusive", on_inconclusive, ON_INCONCLUSIVE)
        self.policy = DriftPolicy(
            numerical_method=numerical_method,
            numerical_threshold=numerical_threshold,
            categorical_method=categorical_method,
            categorical_threshold=categorical_threshold,
            drift_share=drift_share,
            min_rows=min_rows,
        )

    def act(self, context: Context) -> dict[str, Any]:
        """Compare, or find the comparison of an earlier try.

        :raises DatasetError: when the reference is not known.
        :raises EvidenceError: when the verdict is inconclusive and ``on_inconclusive`` is ``fail``.
        :raises WorkloadError: when the check fails or leaves no result.
        """
        request = self._request(context)
        experiment_id = self.hook.get_or_create_experiment(required_text("experiment", self.experiment))
        earlier = self._earlier(experiment_id, request.identity)
        if earlier is not None:
            self.forget_workload(context, request.identity)
            return self._result(context, earlier)
        run = self.open_run(context, experiment_id, self._tags(request))
        return self.run_workload(context, run, request.identity, lambda: self._describe(context, run, request))

    def conclude(self, context: Context, run: Run, identity: str) -> dict[str, Any]:
        """Read the summary back from the finished run.

        :raises ResultMissingError: when the run is not finished, or its summary is not there.
        :raises EvidenceError: when the verdict is inconclusive and ``on_inconclusive`` is ``fail``.
        """
        self.require_finished(run)
        return self._result(context, self._collect(run))

    def _result(self, context: Context, summary: DriftSummary) -> dict[str, Any]:
        self._show(summary)
        result = _plain(summary)
        if summary.verdict == "inconclusive" and self.on_inconclusive == "fail":
            self.push(context, result)
            raise EvidenceError(
                f"the drift check of {self.model_name!r} is inconclusive: {summary.reason}. Its report is in MLflow "
                f"run {summary.run_id}; nothing was concluded about the data"
            )
        return result

    def _request(self, context: Context) -> DriftRequest:
        """Describe the comparison; its identity does not depend on the run that it will get."""
        policy = self.policy
        asked = DriftRequest(
            identity="",
            run_id="",
            reference=self._reference(),
            current=dataset_pin("current", self.current),
            columns=tuple(self.columns),
            ignored_columns=tuple(self.ignored_columns),
            categorical_columns=tuple(self.categorical_columns),
            numerical_method=policy.numerical_method,
            numerical_threshold=policy.numerical_threshold,
            categorical_method=policy.categorical_method,
            categorical_threshold=policy.categorical_threshold,
            drift_share=policy.drift_share,
            min_rows=policy.min_rows,
        )
        key = identity(self.task_key(context), {"drift": asked.model_dump(mode="json")})
        return asked.model_copy(update={"identity": key})

    def _reference(self) -> DatasetPin:
        if self.reference != CHAMPION:
            return dataset_pin("reference", self.reference)
        name = required_text("model_name", self.model_name)
        champion = champion_of(self.hook, name)
        if champion is None:
            raise DatasetError(f"reference is {CHAMPION!r}, but {name!r} has no champion; train one first, or pin data")
        pin = DatasetPin(
            uri=champion.tags.get(contract.TAG_DATA_URI, "unknown"),
            version=champion.tags.get(contract.TAG_DATA_VERSION, ""),
            hash=champion.tags.get(contract.TAG_DATA_HASH, ""),
        )
        if pin.uri == "unknown" or not pin.hash:
            raise DatasetError(
                f"reference is {CHAMPION!r}, but version {champion.version} of {name!r} does not record the data it "
                f"was trained on (tags {contract.TAG_DATA_URI}, {contract.TAG_DATA_HASH}); pin the reference instead"
            )
        return pin

    def _tags(self, request: DriftRequest) -> dict[str, str]:
        return {
            contract.TAG_KIND: contract.KIND_DRIFT_CHECK,
            contract.TAG_IDENTITY: request.identity,
            contract.TAG_INPUTS: fingerprint(request.model_dump(mode="json", exclude={"identity", "run_id"})),
            contract.TAG_MODEL_NAME: self.model_name,
            contract.TAG_DATA_URI: public_uri(request.current.uri),
            contract.TAG_DATA_VERSION: request.current.version,
            contract.TAG_DATA_HASH: request.current.hash,
        }

    def _describe(self, context: Context, run: Run, request: DriftRequest) -> Workload:
        document = dump_document(request.model_copy(update={"run_id": run.run_id}))
        return self.workload(
            context,
            command=self.runtime_command("drift"),
            run=run,
            identity=request.identity,
            model_name=self.model_name,
            files=(WorkloadFile(contract.ENV_REQUEST_PATH, "request.json", document),),
            reads=(request.reference, request.current),
        )

    def _earlier(self, experiment_id: str, key: str) -> DriftSummary | None:
        for run in self.attempts(experiment_id, key):
            if run.status == "FINISHED":
                self.log.info("An earlier try of this task made the comparison in run %s; it is used", run.run_id)
                self.show_run(run)
                return self._collect(run)
        return None

    def _collect(self, run: Run) -> DriftSummary:
        try:
            text = self.hook.download_artifact(run.run_id, contract.ARTIFACT_DRIFT_SUMMARY)
        except MlflowNotFoundError:
            raise ResultMissingError(
                f"the drift check ended well, but left no {contract.ARTIFACT_DRIFT_SUMMARY} in MLflow run {run.run_id}"
            ) from None
        source = f"{contract.ARTIFACT_DRIFT_SUMMARY} of MLflow run {run.run_id}"
        summary = parse_document(DriftSummary, text, source)
        if summary.run_id != run.run_id or summary.identity != run.tags.get(contract.TAG_IDENTITY):
            raise ResultMissingError(f"{source} is about another drift check ({summary.identity})")
        return summary

    def _show(self, summary: DriftSummary) -> None:
        self.log.info("Verdict: %s (%s)", summary.verdict, summary.reason)
        self.log.info("%d reference rows, %d current rows", summary.reference_rows, summary.current_rows)
        for column in sorted(summary.columns, key=lambda item: not item.drifted):
            score = "-" if column.score is None else f"{column.score:.6g}"
            state = {True: "drifted", False: "stable", None: "unknown"}[column.drifted]
            self.log.info("  %-9s %-32s %s %s %s", state, column.column, column.method, score, column.note)


def _plain(summary: DriftSummary) -> dict[str, Any]:
    return {
        "verdict": summary.verdict,
        "reason": summary.reason,
        "drift_share": summary.drift_share,
        "drifted_columns": [column.column for column in summary.columns if column.drifted],
        "run_id": summary.run_id,
        "report": contract.ARTIFACT_DRIFT_REPORT_HTML,
    }
