"""Check that a registered version loads and predicts: before an alias points at it, and repeatedly afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mcp.core import contract
from airflow_mcp.core.argument import choice, flag, required_text, version_number
from airflow_mcp.core.audit.decisions import load_check_decided
from airflow_mcp.core.document import dump_document, parse_document
from airflow_mcp.core.identity import fingerprint, identity
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.registry.load_check import (
    LoadCheckReport,
    LoadCheckRequest,
    of_report,
    read_load_check,
    require_ready,
    supersedes,
)
from airflow_mcp.core.workload.definition import Workload, WorkloadFile
from airflow_mcp.exceptions import (
    AliasConflictError,
    EvidenceError,
    InvalidArgumentError,
    LoadCheckFailedError,
    MlflowNotFoundError,
    ResultMissingError,
)
from airflow_mcp.links.mlflow import MlflowModelVersionLink, MlflowRunLink
from airflow_mcp.operators.workload import WorkloadOperator
from airflow_mcp.registry.aliases import model_of, ways_back
from airflow_mcp.registry.passports import issue_passport

if TYPE_CHECKING:
    from airflow.sdk import Context

OnMissingAlias = Literal["fail", "skip"]


class LoadCheckOperator(WorkloadOperator):
    """Load a registered version as a server would, let it predict its own input example, and tag it with the verdict.

    The workload loads ``models:/<name>/<version>`` in its image. The version passes when it returns one prediction per
    row, none of them missing, NaN or infinite, with the types of its output signature. A version that fails is tagged
    as unusable: it gets no alias until a later check passes. A problem that is not the version's fault (MLflow or the
    pod is not available, the image lacks a library that the model records) does not change its tags.

    The check has an MLflow run of its own, which holds the report. A retry finds the result of a finished check.
    When ``[airflow_mcp] signing_conn_id`` is set, a version that passes gets its passport, unless it has one that fits.

    XCom, also when the task fails: ``model_name``, ``version``, ``verdict`` (``passed``, ``failed``, ``inconclusive``
    or ``error``), ``reason``, ``run_id``, ``rows``, ``load_seconds``, ``memory_peak_bytes``, ``dry_run``.

    :param model_name: registered model (templated).
    :param version: version to check; empty takes ``alias`` (templated).
    :param alias: check the version that this alias points at when the task starts (templated).
    :param on_missing_alias: when the alias is not set, ``fail`` this task, or ``skip`` it and its downstream tasks.
    :param require_example: whether a model without an input example, which cannot be tested with a prediction, is
        refused; False accepts it with a note.
    :param experiment_name: MLflow experiment of the check's run, created when it does not exist; empty takes
        ``<model_name>-load-checks`` (templated).
    :param dry_run: find the version and check nothing; downstream tasks run (templated).
    """

    template_fields: Sequence[str] = (
        *WorkloadOperator.template_fields,
        "model_name",
        "version",
        "alias",
        "experiment_name",
        "dry_run",
    )
    operator_extra_links = (MlflowRunLink(), MlflowModelVersionLink())
    refusal_exit_code = contract.EXIT_REFUSED
    ui_color = "#d9efe9"

    def __init__(
        self,
        *,
        model_name: str,
        version: str = "",
        alias: str = "",
        on_missing_alias: OnMissingAlias = "fail",
        require_example: bool = True,
        experiment_name: str = "",
        dry_run: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version = version
        self.alias = alias
        self.on_missing_alias = choice("on_missing_alias", on_missing_alias, get_args(OnMissingAlias))
        self.require_example = require_example
        self.experiment_name = experiment_name
        self.dry_run = dry_run

    def act(self, context: Context) -> dict[str, Any]:
        """Check the version, or use the check of an earlier try.

        :raises AliasConflictError: when alias or version does not exist; the message names the earlier champions.
        :raises LoadCheckFailedError: when the version does not load, or its predictions are wrong.
        :raises EvidenceError: when the check shows nothing about the version: it is not READY, has no input example, or
            does not match the image.
        :raises WorkloadError: when the check itself fails or leaves no result; the version is not tagged.
        """
        name = required_text("model_name", self.model_name)
        if flag("dry_run", self.dry_run):
            return self._unchecked(self._find(name))
        key = identity(self.task_key(context), {"load_check": self._question(name)})
        experiment_id = self.hook.get_or_create_experiment(self.experiment_name or f"{name}-load-checks")
        attempts = self.attempts(experiment_id, key)
        unrecorded = (earlier for earlier in attempts if contract.TAG_TOLD not in earlier.tags)
        if done := self.finished_attempt(context, key, unrecorded):
            return self.conclude(context, done, key)
        live = next((earlier.tags.get(contract.TAG_MODEL_VERSION) for earlier in attempts if earlier.is_live), None)
        run = self.open_run(context, experiment_id, self._tags(key, live or self._ready_version(name)))
        return self.run_workload(context, run, key, lambda: self._describe(context, run, key))

    def conclude(self, context: Context, run: Run, identity: str) -> dict[str, Any]:
        """Read the report, tag the version, and fail the task unless the check passed.

        :raises ResultMissingError: when the run is not finished, or its report is missing.
        :raises LoadCheckFailedError: when the verdict is ``failed``.
        :raises EvidenceError: when the verdict is ``inconclusive`` or ``error``.
        :raises PassportError: when a key is configured and the records about the version contradict each other.
        """
        self.require_finished(run)
        report = self._report(run, identity)
        self._tag_version(report, run)
        result = _plain(report)
        self.push(context, result)
        self.record(context, partial(load_check_decided, report.model_name, report.version, of_report(report, run)))
        if report.verdict == "passed":
            self._issue_passport(context, report)
        self.hook.set_tag(run.run_id, contract.TAG_TOLD, "true")
        what = f"version {report.version} of {report.model_name!r}"
        where = f"The report is {contract.ARTIFACT_LOAD_CHECK} of MLflow run {run.run_id}"
        if report.verdict == "failed":
            raise LoadCheckFailedError(f"{what} is unusable: {report.reason}. It must not be given an alias. {where}")
        if report.verdict != "passed":
            raise EvidenceError(f"{what} could not be verified ({report.verdict}): {report.reason}. {where}")
        return result

    # --- inputs -------------------------------------------------------------------------------------------------

    def _question(self, name: str) -> dict[str, Any]:
        """Return the inputs: an alias, not its version, so that a retry checks the version of the first try."""
        asked = {"version": version_number("version", self.version)} if self.version else {"alias": self.alias}
        if not self.version and not self.alias:
            raise InvalidArgumentError("version or alias must be given; got neither. Nothing was started")
        return {**asked, "model_name": name, "image": self.image or "", "require_example": self.require_example}

    def _find(self, name: str) -> ModelVersion:
        """Return the version to check."""
        self._question(name)
        try:
            if self.version:
                return self.hook.get_model_version(name, version_number("version", self.version))
            found = self._pointed_at(name)
        except MlflowNotFoundError as error:
            raise self._nothing_to_check(name, f"does not exist, perhaps it was deleted ({error})") from error
        if found is None:
            raise self._nothing_to_check(name, "is not set, so there is nothing to check")
        return found

    def _pointed_at(self, name: str) -> ModelVersion | None:
        if self.alias != contract.ALIAS_PREVIOUS_CHAMPION:
            return self.hook.get_model_version_by_alias(name, self.alias)
        # A promotion that died may not have moved this alias yet; the rollback goes where it would have been moved.
        version = model_of(self.hook, name).aliases.get(self.alias)
        return self.hook.get_model_version(name, version) if version else None

    def _nothing_to_check(self, name: str, problem: str) -> Exception:
        what = f"version {self.version}" if self.version else f"alias {self.alias!r}"
        if not self.version and self.on_missing_alias == "skip":
            return AirflowSkipException(f"{name!r}: {what} {problem}")
        try:
            others = ways_back(self.hook, self.hook.get_registered_model(name))
        except MlflowNotFoundError:
            others = "There is no such registered model"
        return AliasConflictError(f"{name!r}: {what} {problem}. {others}")

    def _ready_version(self, name: str) -> str:
        version = self._find(name)
        require_ready(version)
        return f"{name}/{version.version}"

    def _tags(self, key: str, named: str) -> dict[str, str]:
        return {
            contract.TAG_KIND: contract.KIND_LOAD_CHECK,
            contract.TAG_IDENTITY: key,
            contract.TAG_INPUTS: fingerprint({"version": named, "image": self.image or ""}),
            contract.TAG_MODEL_NAME: self.model_name,
            contract.TAG_MODEL_VERSION: named,
        }

    def _describe(self, context: Context, run: Run, key: str) -> Workload:
        """Describe the check of the run's version; when resuming, the first attempt's version."""
        name, _, version = run.tags[contract.TAG_MODEL_VERSION].rpartition("/")
        self.mlflow_model_version_url = self.hook.model_version_url(name, version)
        request = LoadCheckRequest(
            identity=key, run_id=run.run_id, model_name=name, version=version, require_example=self.require_example
        )
        return self.workload(
            context,
            command=self.runtime_command("load-check"),
            run=run,
            identity=key,
            model_name=name,
            files=(WorkloadFile(contract.ENV_REQUEST_PATH, "request.json", dump_document(request)),),
        )

    # --- result --------------------------------------------------------------------------------------------------

    def _report(self, run: Run, key: str) -> LoadCheckReport:
        report = self.read_result(
            run.run_id, key, contract.ARTIFACT_LOAD_CHECK, partial(parse_document, LoadCheckReport), "check"
        )
        named = f"{report.model_name}/{report.version}"
        if named != run.tags.get(contract.TAG_MODEL_VERSION):
            raise ResultMissingError(
                f"{contract.ARTIFACT_LOAD_CHECK} of MLflow run {run.run_id} belongs to another check (of {named})"
            )
        return report

    def _tag_version(self, report: LoadCheckReport, run: Run) -> None:
        """Tag the version, unless the check showed nothing about it or a later check was recorded before."""
        name, number = report.model_name, report.version
        self.mlflow_model_version_url = self.hook.model_version_url(name, number)
        self.log.info("Version %s of %s: %s: %s", number, name, report.verdict, report.reason)
        for finding in report.findings:
            state = {True: "holds", False: "FAILS", None: "unknown"}[finding.holds]
            self.log.info("  %-10s %-8s %s", finding.name, state, finding.note)
        check = of_report(report, run)
        try:
            known = read_load_check(self.hook.get_model_version(name, number).tags)
        except MlflowNotFoundError:
            self.log.warning("Version %s of %s was deleted in the meantime and is not tagged", number, name)
            return
        if not supersedes(check, known):
            self.log.info("The version's tags stay as they are: %s", known or "never checked")
            return
        for tag, value in check.to_tags().items():
            self.hook.set_model_version_tag(name, number, tag, value)

    def _issue_passport(self, context: Context, report: LoadCheckReport) -> None:
        """Sign what the version was made from, if a key is configured; a retry does so again before ``TAG_TOLD``."""
        if self.signer is None:
            return
        version = self.hook.get_model_version(report.model_name, report.version)
        by = self.actor(context)
        issued = issue_passport(self.hook, version, signer=self.signer, governance=self.governance, by=by)
        self.log.info("Version %s of %s has passport %s", version.version, version.name, issued.statement.digest)

    def _unchecked(self, version: ModelVersion) -> dict[str, Any]:
        self.log.warning("Version %s of %s is not checked: this is a dry run", version.version, version.name)
        self.mlflow_model_version_url = self.hook.model_version_url(version.name, version.version)
        empty = dict.fromkeys(("verdict", "reason", "run_id", "rows", "load_seconds", "memory_peak_bytes"))
        return {"model_name": version.name, "version": version.version, **empty, "dry_run": True}


def _plain(report: LoadCheckReport) -> dict[str, Any]:
    return {
        "model_name": report.model_name,
        "version": report.version,
        "verdict": report.verdict,
        "reason": report.reason,
        "run_id": report.run_id,
        "rows": report.rows,
        "load_seconds": report.load_seconds,
        "memory_peak_bytes": report.memory_peak_bytes,
        "dry_run": False,
    }
