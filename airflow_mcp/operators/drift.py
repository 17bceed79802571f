"""Compare current data with reference data; the report is stored in an MLflow run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airflow_mcp.core import contract
from airflow_mcp.core.argument import choice, problems_of, read_policy, required_text, rows_to_draw, whole_number
from airflow_mcp.core.data.dataset import data_tags, dataset_pin
from airflow_mcp.core.data.logged_requests import CHAMPION_ROLES
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.importance import PLACES
from airflow_mcp.core.drift.policy import ComparisonPolicy, DriftPrecision, require_no_rows
from airflow_mcp.core.drift.summary import DriftRequest, DriftSide, DriftSummary, by_severity, read_drift_summary
from airflow_mcp.core.engine import ENGINES, Engine, plain_engine_address
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.registry.copies import run_of
from airflow_mcp.exceptions import DatasetError, EvidenceError, InvalidArgumentError
from airflow_mcp.hooks.engine import read_engine_address
from airflow_mcp.metrics import stats
from airflow_mcp.metrics.tasks import Sample
from airflow_mcp.operators.base import has_template
from airflow_mcp.operators.check import CheckOperator, Verdict
from airflow_mcp.registry.aliases import champion_of
from airflow_mcp.registry.evidence import find_importance, profile_of
from airflow_mcp.registry.recording import drift_event

if TYPE_CHECKING:
    from airflow.sdk import Context

CHAMPION = "champion"
_INSTEAD = {"reference": "pin the reference", "weights": "write them into the policy"}
_SHOWN_COLUMNS = 50
_DEFAULT = ComparisonPolicy()
_SHORT_FORM: Mapping[str, Any] = {
    name: getattr(_DEFAULT, name) for name in ("columns", "ignored_columns", "drift_share", "min_rows", "precision")
}
"""Fields of the policy that are arguments of their own, with their defaults."""


class DriftCheckOperator(CheckOperator[DriftRequest, DriftSummary]):
    """Check whether current data has drifted from reference data, or from a stored profile of reference data.

    Methods and thresholds are recorded in the result. The check has an MLflow run of its own, which holds an HTML
    report, the summary as JSON and the profile of the current data.

    XCom, also when the task fails: ``verdict`` (``drifted``, ``not_drifted`` or ``inconclusive``), ``reason``,
    ``drift_share``, ``drifted_columns`` (worst first), ``findings`` (beyond their limit), ``run_id`` and
    ``report`` (artifact path of the HTML report).

    :param experiment_name: MLflow experiment of the checks; created when it does not exist (templated).
    :param model_name: registered model of the data (templated).
    :param current: data to check: pinned data ``{uri, version, hash}`` (also a folder or glob), ``{profile: <uri>}``,
        a list of either, or ``{requests: <uri>}``: the prediction log of the model server, of which the answers of the
        champion are compared, without the server's own columns; ``roles`` beside it names others (templated).
    :param reference: data to compare with, in the same form; or ``champion``: the profile that the champion's training
        stored or, if there is none, the data recorded on its version (templated).
    :param columns: columns to compare; empty compares every column that is not ignored.
    :param ignored_columns: columns to leave out, for example the label.
    :param drift_share: share of drifted columns, more than 0 and up to 1, at which the data counts as drifted.
    :param min_rows: minimum number of values on each side; a column with fewer is not compared.
    :param precision: ``profile``: bounded memory, scores within a stated error; ``exact``: from every value.
    :param policy: how to compare, as a :class:`~airflow_mcp.core.drift.policy.ComparisonPolicy` or a mapping of its
        fields, such as ``numerical_method``, ``weights`` (feature to importance; or ``champion``, the importance
        recorded for the champion's features), ``correction``, ``rules``, ``prediction``, ``target``, ``drift_on`` and
        ``outliers``. A field that is given both here and as an argument of its own is refused (templated).
    :param evidently_rows: rows drawn from each dataset for Evidently's HTML report; 0: no such report (templated).
    :param engine: ``local`` reads the data in the workload; ``spark`` and ``dask`` read it in parts on a cluster, from
        which only profiles come back, so nothing that needs rows can be asked for.
    :param engine_conn_id: connection with the address of the cluster; None takes ``spark_default`` or ``dask_default``.
    :param engine_address: address of the cluster instead of a connection, without credentials (templated).
    :param on_inconclusive: ``fail`` or ``skip`` the task, or ``continue`` with that verdict in XCom. The report is kept
        and XCom is pushed in any case.
    """

    template_fields: Sequence[str] = (
        *CheckOperator.template_fields,
        "current",
        "reference",
        "policy",
        "evidently_rows",
        "engine_address",
    )
    step = "drift"
    kind = contract.KIND_DRIFT_CHECK
    called = "drift check"
    concerns = "data"
    ui_color = "#e6dcf7"

    def __init__(
        self,
        *,
        current: Any,
        reference: Any = CHAMPION,
        columns: Sequence[str] = _DEFAULT.columns,
        ignored_columns: Sequence[str] = _DEFAULT.ignored_columns,
        drift_share: float = _DEFAULT.drift_share,
        min_rows: int = _DEFAULT.min_rows,
        precision: DriftPrecision = _DEFAULT.precision,
        policy: ComparisonPolicy | Mapping[str, Any] | None = None,
        evidently_rows: int | str = 0,
        engine: Engine = "local",
        engine_conn_id: str | None = None,
        engine_address: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.current = current
        self.reference = reference
        self.evidently_rows = evidently_rows
        self.columns, self.ignored_columns = columns, ignored_columns
        self.drift_share, self.min_rows = drift_share, min_rows
        self.precision = precision
        self.policy = policy
        choice("engine", engine, ENGINES)
        self.engine = engine
        self.engine_conn_id, self.engine_address = engine_conn_id, engine_address
        if engine_address and (engine_conn_id or engine == "local"):
            raise InvalidArgumentError(
                "engine_address needs engine 'spark' or 'dask', and no engine_conn_id beside it; got engine "
                f"{engine!r} and engine_conn_id {engine_conn_id!r}"
            )
        self._report_rows()  # a wrong number or field is refused when the Dag is parsed
        if not has_template(policy):
            self._comparison_policy()

    def asked(self, context: Context) -> DriftRequest:
        """Describe the comparison.

        :raises DatasetError: when there is no reference.
        :raises EvidenceError: when the champion has no feature importance although ``weights`` is ``champion``.
        :raises InvalidArgumentError: when an argument is wrong.
        """
        asked = DriftRequest(
            identity="",
            run_id="",
            model_name=required_text("model_name", self.model_name),
            reference=self._reference(),
            current=drift_side("current", self.current),
            policy=self._weighted_policy(),
            evidently_rows=self._report_rows(),
            engine=self.engine,
        )
        self._require_rows(asked)
        return asked

    def _require_rows(self, asked: DriftRequest) -> None:
        """Refuse profiles where rows are needed, before a workload is started."""
        given = [name for name in ("reference", "current") if getattr(asked, name).profiles]
        if given and self._needs_rows:
            raise InvalidArgumentError(
                "precision 'exact' and outliers need the rows of both datasets, but "
                f"{' and '.join(given)} is a profile. Pin the data. Nothing was compared"
            )

    @property
    def _weighs_as_champion(self) -> bool:
        return isinstance(self.policy, Mapping) and self.policy.get("weights") == CHAMPION

    def _comparison_policy(self) -> ComparisonPolicy:
        """Return the policy, without the weights of the champion where it asks for them."""
        given = self.policy
        if isinstance(given, Mapping) and self._weighs_as_champion:
            given = {name: value for name, value in given.items() if name != "weights"}
        short = {name: getattr(self, name) for name in _SHORT_FORM}
        policy = read_policy(ComparisonPolicy, given, short, _SHORT_FORM, _policy)
        require_no_rows(policy, self.engine, self._report_rows())
        return policy

    def _report_rows(self) -> int:
        """Return the rows for Evidently's report; 0 before a template has been rendered."""
        if has_template(self.evidently_rows):
            return 0
        return rows_to_draw("evidently_rows", whole_number("evidently_rows", self.evidently_rows))

    @property
    def _needs_rows(self) -> bool:
        policy = self._comparison_policy()
        return policy.precision == "exact" or policy.outliers is not None

    def _champion(self, asked: str) -> ModelVersion:
        name = required_text("model_name", self.model_name)
        champion = champion_of(self.hook, name)
        if champion is None:
            raise DatasetError(
                f"{asked} is {CHAMPION!r}, but {name!r} has no champion. Train one first, or {_INSTEAD[asked]}"
            )
        return champion

    def _weighted_policy(self) -> ComparisonPolicy:
        """Return the policy, with the importance of the champion's features as weights if it asks for them."""
        policy = self._comparison_policy()
        if not self._weighs_as_champion:
            return policy
        champion = self._champion("weights")
        run_id = run_of(champion)
        found = find_importance(self.hook, run_id) if run_id else None
        if found is None:
            raise EvidenceError(
                f"weights is {CHAMPION!r}, but the run of version {champion.version} of {self.model_name!r} has "
                f"no feature importance logged. Evaluate with importance_rows, log {PLACES[1]} in training, or "
                f"{_INSTEAD['weights']}. Nothing was compared"
            )
        asked, ignored = policy.columns or found, policy.ignored_columns
        weights = {name: weight for name, weight in found.items() if weight and name in asked and name not in ignored}
        if not weights:
            raise EvidenceError(
                f"weights is {CHAMPION!r}, but no compared column is important to version {champion.version} of "
                f"{self.model_name!r}. Check columns and ignored_columns. Nothing was compared"
            )
        return policy.model_copy(update={"weights": weights})

    def _reference(self) -> DriftSide:
        if self.reference != CHAMPION:
            return drift_side("reference", self.reference)
        champion, name = self._champion("reference"), self.model_name
        data = _recorded_data(champion)
        profile = profile_of(champion)
        if profile and not self._needs_rows:
            return DriftSide(data=data, profiles=(profile,))
        if not data:
            raise DatasetError(
                f"reference is {CHAMPION!r}, but version {champion.version} of {name!r} does not record the data it "
                f"was trained on (tags {contract.TAG_DATA_URI}, {contract.TAG_DATA_HASH}). Pin the reference instead"
            )
        return DriftSide(data=data)

    def step_secrets(self) -> Mapping[str, str]:
        """Return the address of the cluster, which may hold a token.

        :raises InvalidArgumentError: when the connection is missing, or has no address of this engine.
        """
        if self.engine == "local":
            return {}
        if self.engine_address:
            return {
                contract.ENV_ENGINE_ADDRESS: plain_engine_address("engine_address", self.engine, self.engine_address)
            }
        return {contract.ENV_ENGINE_ADDRESS: read_engine_address(self.engine, self.engine_conn_id)}

    def read_data(self, request: DriftRequest) -> tuple[DatasetPin, ...]:
        """Return the data of both sides."""
        return (*request.reference.data, *request.current.data)

    def data_tags(self, request: DriftRequest) -> Mapping[str, str]:
        """Return the tags of the current data."""
        current = request.current
        if current.data:
            return data_tags(current.data[0])
        return {contract.TAG_DATA_URI: current.requests or current.profiles[0]}

    def collect(self, run: Run) -> DriftSummary:
        """Read the summary from a run.

        :raises ResultMissingError: when it is missing, or about another check.
        """
        key = run.tags.get(contract.TAG_IDENTITY, "")
        return self.read_result(run.run_id, key, contract.ARTIFACT_DRIFT_SUMMARY, read_drift_summary, self.called)

    def verdict_of(self, summary: DriftSummary) -> Verdict:
        """Return the verdict of a summary."""
        return Verdict(summary.result.verdict, summary.result.reason)

    def outcome_of(self, summary: DriftSummary) -> dict[str, Any]:
        """Return what is pushed to XCom."""
        return _plain(summary)

    def publish(self, summary: DriftSummary) -> None:
        """Publish the numbers of the check as Airflow metrics."""
        publish(self.model_name, summary)

    def record_verdict(self, context: Context, summary: DriftSummary) -> None:
        """Record the verdict in the audit log, if there is one."""
        self.record(context, partial(drift_event, self.model_name, summary))

    def show(self, summary: DriftSummary) -> None:
        """Write a summary to the task log."""
        result = summary.result
        self.log.info("Verdict: %s (%s)", result.verdict, result.reason)
        self.log.info("%d reference rows, %d current rows", result.reference_rows, result.current_rows)
        for column in by_severity(result.columns)[:_SHOWN_COLUMNS]:
            score = "-" if column.score is None else f"{column.score:.6g}"
            state = {True: "drifted", False: "stable", None: "unknown"}[column.drifted]
            self.log.info("  %-9s %-32s %s %s %s", state, column.column, column.method, score, column.note)
        if len(result.columns) > _SHOWN_COLUMNS:
            self.log.info("  and %d more columns; see the report", len(result.columns) - _SHOWN_COLUMNS)
        for finding in result.findings:
            if finding.exceeded:
                self.log.info("  %s %s: %s", finding.kind, finding.column, finding.message)


def publish(model_name: str, summary: DriftSummary) -> None:
    """Publish the numbers of a check as Airflow metrics.

    :param model_name: registered model.
    :param summary: summary of the check.
    """
    result, tags = summary.result, {"model": model_name}
    gauges: dict[str, float | None] = {
        "drift_share": result.drift_share,
        "drifted_columns": float(result.drifted_columns_count),
        "current_rows": float(result.current_rows),
        "findings": float(sum(finding.exceeded for finding in result.findings)),
        "drifted": {"drifted": 1.0, "not_drifted": 0.0, "inconclusive": None}[result.verdict],
    }
    samples = [Sample(f"drift.{name}", value, tags) for name, value in gauges.items() if value is not None]
    stats.publish([*samples, Sample("drift.checks", tags={**tags, "verdict": result.verdict})])


def drift_side(name: str, value: Any) -> DriftSide:
    """Read an argument that names data to compare.

    :param name: name of the argument, for the message.
    :param value: pinned data, ``{profile: <uri>}``, a list of one of these kinds, or ``{requests: <uri>}``, which
        may have ``roles``.
    :raises InvalidArgumentError: when it is none of these.
    """
    if isinstance(value, Mapping) and "requests" in value and set(value) <= {"requests", "roles"}:
        return _logged_requests(name, value)
    items = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    profiles = [item for item in items if isinstance(item, Mapping) and "profile" in item]
    if profiles and len(profiles) == len(items):
        wrong = [item for item in profiles if set(item) != {"profile"} or not item["profile"]]
        if not wrong:
            return DriftSide(profiles=tuple(str(item["profile"]) for item in profiles))
    if profiles or not items:
        raise InvalidArgumentError(
            f"{name} must be pinned data, {{'profile': <uri>}}, a list of one of these kinds, or "
            f"{{'requests': <uri>}}; got {value!r}"
        )
    return DriftSide(data=tuple(dataset_pin(name, item) for item in items))


def _logged_requests(name: str, value: Mapping[str, Any]) -> DriftSide:
    uri = required_text(f"{name}.requests", value["requests"])
    try:
        return DriftSide(requests=uri, roles=value.get("roles", CHAMPION_ROLES))
    except ValidationError as error:
        raise InvalidArgumentError(problems_of(error, name, DriftSide)) from None


def _recorded_data(champion: ModelVersion) -> tuple[DatasetPin, ...]:
    """Return the data recorded on a version; empty when the record has no hash."""
    uri, digest = champion.tags.get(contract.TAG_DATA_URI, ""), champion.tags.get(contract.TAG_DATA_HASH, "")
    if not uri or not digest:
        return ()
    return (DatasetPin(uri=uri, version=champion.tags.get(contract.TAG_DATA_VERSION, ""), hash=digest),)


def _policy(fields: Mapping[str, Any]) -> ComparisonPolicy:
    try:
        return ComparisonPolicy(**fields)
    except ValidationError as error:
        raise InvalidArgumentError(problems_of(error, "the drift policy", ComparisonPolicy)) from None


def _plain(summary: DriftSummary) -> dict[str, Any]:
    result = summary.result
    return {
        "verdict": result.verdict,
        "reason": result.reason,
        "drift_share": result.drift_share,
        "drifted_columns": summary.drifted_columns,
        "findings": [f"{item.kind} {item.column}".strip() for item in result.findings if item.exceeded],
        "run_id": summary.run_id,
        "report": contract.ARTIFACT_DRIFT_REPORT_HTML,
    }
