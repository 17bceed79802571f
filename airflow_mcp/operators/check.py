"""Base of the checks that have an MLflow run of their own and end in a verdict."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, get_args

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mcp.core import contract
from airflow_mcp.core.argument import OnInconclusive, choice, required_text
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import CheckRequest, dump_document
from airflow_mcp.core.identity import fingerprint, identity
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.ports import WorkResult
from airflow_mcp.core.workload.definition import Workload, WorkloadFile
from airflow_mcp.exceptions import EvidenceError
from airflow_mcp.links.mlflow import MlflowRunLink
from airflow_mcp.operators.workload import WorkloadOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

SummaryT = TypeVar("SummaryT", bound=WorkResult)
RequestT = TypeVar("RequestT", bound=CheckRequest)


class Verdict(NamedTuple):
    """The verdict of a check."""

    verdict: str
    """``inconclusive``, or a word of the check."""
    reason: str


class CheckOperator(WorkloadOperator, Generic[RequestT, SummaryT]):
    """Base of checks whose step records a summary in an MLflow run of its own.

    :param experiment_name: MLflow experiment of the checks; created when it does not exist (templated).
    :param model_name: registered model of the data (templated).
    :param on_inconclusive: ``fail`` or ``skip`` the task, or ``continue`` with that verdict in XCom. The report is kept
        and XCom is pushed in any case.
    """

    template_fields: Sequence[str] = (*WorkloadOperator.template_fields, "experiment_name", "model_name")
    operator_extra_links = (MlflowRunLink(),)
    refusal_exit_code = contract.EXIT_REFUSED
    step: str = ""
    """Step of the work plane."""
    kind: str = ""
    """Kind of the MLflow run."""
    called: str = ""
    """The check in messages, such as ``drift check``."""
    concerns: str = ""
    """What an inconclusive check says nothing about."""

    def __init__(
        self, *, experiment_name: str, model_name: str, on_inconclusive: OnInconclusive = "fail", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.experiment_name = experiment_name
        self.model_name = model_name
        self.on_inconclusive = choice("on_inconclusive", on_inconclusive, get_args(OnInconclusive))

    def act(self, context: Context) -> dict[str, Any]:
        """Run the check, or use the result of an earlier try.

        :raises EvidenceError: when the verdict is inconclusive and ``on_inconclusive`` is ``fail``.
        :raises WorkloadError: when the check fails or leaves no result.
        """
        experiment_name = required_text("experiment_name", self.experiment_name)
        asked = self.asked(context)
        key = identity(self.task_key(context), {self.step: asked.model_dump(mode="json")})
        request = asked.model_copy(update={"identity": key})
        experiment_id = self.hook.get_or_create_experiment(experiment_name)
        attempts = self.attempts(experiment_id, key)
        if done := self.finished_attempt(context, key, attempts):
            return self._result(context, self.collect(done))
        run = self.open_run(context, experiment_id, self._tags(request))
        return self.run_workload(context, run, key, lambda: self._describe(context, run, request))

    def conclude(self, context: Context, run: Run, identity: str) -> dict[str, Any]:
        """Read the summary from the finished run, and publish its numbers as Airflow metrics.

        :raises ResultMissingError: when the run is not finished, or its summary is missing.
        :raises EvidenceError: when the verdict is inconclusive and ``on_inconclusive`` is ``fail``.
        """
        self.require_finished(run)
        summary = self.collect(run)
        self.publish(summary)
        return self._result(context, summary)

    # --- what differs between checks ---------------------------------------------------------------------------------

    @abstractmethod
    def asked(self, context: Context) -> RequestT:
        """Return the request, without its identity and MLflow run.

        :raises InvalidArgumentError: when an argument is wrong.
        """

    @abstractmethod
    def read_data(self, request: RequestT) -> tuple[DatasetPin, ...]:
        """Return the data that the step reads, whose credentials it needs."""

    @abstractmethod
    def data_tags(self, request: RequestT) -> Mapping[str, str]:
        """Return the tags of the run that say which data was checked."""

    @abstractmethod
    def collect(self, run: Run) -> SummaryT:
        """Read the summary from a run.

        :raises ResultMissingError: when it is missing, or about another check.
        """

    @abstractmethod
    def verdict_of(self, summary: SummaryT) -> Verdict:
        """Return the verdict of a summary."""

    @abstractmethod
    def outcome_of(self, summary: SummaryT) -> dict[str, Any]:
        """Return what is pushed to XCom."""

    @abstractmethod
    def show(self, summary: SummaryT) -> None:
        """Write a summary to the task log."""

    def step_secrets(self) -> Mapping[str, str]:
        """Return the credentials that the step needs besides those of its data, by the names of their variables."""
        return {}

    def publish(self, summary: SummaryT) -> None:
        """Publish the numbers of a check as Airflow metrics, beyond what every task reports."""

    def record_verdict(self, context: Context, summary: SummaryT) -> None:
        """Record the verdict in the audit log, if there is one."""

    # --- the same for all --------------------------------------------------------------------------------------------

    def _result(self, context: Context, summary: SummaryT) -> dict[str, Any]:
        self.show(summary)
        result, found = self.outcome_of(summary), self.verdict_of(summary)
        self.record_verdict(context, summary)
        if found.verdict != "inconclusive" or self.on_inconclusive == "continue":
            return result
        self.push(context, result)
        message = (
            f"the {self.called} of {self.model_name!r} is inconclusive: {found.reason}. Its report is in "
            f"MLflow run {summary.run_id}. Nothing was concluded about the {self.concerns}"
        )
        if self.on_inconclusive == "skip":
            raise AirflowSkipException(message)
        raise EvidenceError(message)

    def _tags(self, request: RequestT) -> dict[str, str]:
        return {
            contract.TAG_KIND: self.kind,
            contract.TAG_IDENTITY: request.identity,
            contract.TAG_INPUTS: fingerprint(request.model_dump(mode="json", exclude={"identity", "run_id"})),
            contract.TAG_MODEL_NAME: self.model_name,
            **{name: value for name, value in self.data_tags(request).items() if value},
        }

    def _describe(self, context: Context, run: Run, request: RequestT) -> Workload:
        document = dump_document(request.model_copy(update={"run_id": run.run_id}))
        return self.workload(
            context,
            command=self.runtime_command(self.step),
            run=run,
            identity=request.identity,
            model_name=self.model_name,
            files=(WorkloadFile(contract.ENV_REQUEST_PATH, "request.json", document),),
            reads=self.read_data(request),
            secrets=self.step_secrets(),
        )
