"""Copy a model version to another registered model, on the same MLflow server or from another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mcp.core import contract
from airflow_mcp.core.argument import flag, required_text, version_number
from airflow_mcp.core.audit.decisions import version_registered
from airflow_mcp.core.document import dump_document, parse_document
from airflow_mcp.core.identity import identity
from airflow_mcp.core.mlflow_entities import ModelVersion, Run
from airflow_mcp.core.registry.copies import (
    CARRIED_ARTIFACTS,
    CopyRequest,
    CopyResult,
    copied_from,
    copy_of,
    copy_tags,
    read_copied_from,
    run_of,
)
from airflow_mcp.core.registry.gate_check import require_passed_gate
from airflow_mcp.core.registry.load_check import require_ready
from airflow_mcp.core.registry.moves import MoveOrder
from airflow_mcp.core.workload.definition import Workload, WorkloadFile
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError
from airflow_mcp.hooks.mlflow import MlflowHook
from airflow_mcp.links.mlflow import MlflowModelVersionLink, MlflowRunLink
from airflow_mcp.mlflow_client.api import filter_value
from airflow_mcp.operators.base import now
from airflow_mcp.operators.workload import WorkloadOperator
from airflow_mcp.registry.claims import Claims
from airflow_mcp.registry.guard import ComplianceGuard
from airflow_mcp.registry.promotion import gate_verdict
from airflow_mcp.registry.registration import create_once, mark_model, wait_until_ready

if TYPE_CHECKING:
    from airflow.sdk import Context

_USABLE = ("RUNNING", "FINISHED")


class CopyModelVersionOperator(WorkloadOperator):
    """Copy a version of a registered model to another registered model: from dev to test, from test to production.

    ``mlflow_conn_id`` is the server to copy *to*. From another server, a workload copies the files byte for byte and
    compares them afterwards; on the same server, the copy is a version whose source is the copied version. The copy
    has an MLflow run of its own, which holds the source run's artifacts and, later, the evidence of the gate in its
    own environment. No alias is moved.

    XCom: ``model_name``, ``version``, ``model_uri`` (``models:/<name>/<version>``), ``run_id`` (of the copy),
    ``digest`` (empty when the files are shared), ``copied`` (false when the copy existed already).

    :param model_name: registered model to copy from (templated).
    :param version: version to copy (templated).
    :param target_model_name: registered model to copy to; created when it does not exist. Empty takes the same name,
        which needs two servers (templated).
    :param experiment_name: MLflow experiment of the copy's run; created when missing (templated).
    :param source_mlflow_conn_id: connection of the server to copy from; None: the same server.
    :param require_gate: refuse a version that no gate accepted on its own server.
    :param carry_gate_verdict: whether the source's gate verdict counts for the copy. Otherwise the copy needs a gate
        verdict of its own before it can be promoted.
    :param dry_run: check the source, log what would be copied, and skip (templated).
    """

    template_fields: Sequence[str] = (
        *WorkloadOperator.template_fields,
        "model_name",
        "version",
        "target_model_name",
        "experiment_name",
        "dry_run",
    )
    operator_extra_links = (MlflowModelVersionLink(), MlflowRunLink())
    refusal_exit_code = contract.EXIT_REFUSED
    ui_color = "#dceefb"

    def __init__(
        self,
        *,
        model_name: str,
        version: str,
        experiment_name: str,
        target_model_name: str = "",
        source_mlflow_conn_id: str | None = None,
        require_gate: bool = True,
        carry_gate_verdict: bool = False,
        dry_run: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version = version
        self.target_model_name = target_model_name
        self.experiment_name = experiment_name
        self.source_mlflow_conn_id = source_mlflow_conn_id
        self.require_gate = require_gate
        self.carry_gate_verdict = carry_gate_verdict
        self.dry_run = dry_run

    @cached_property
    def source_hook(self) -> MlflowHook:
        """The hook of the server to copy from."""
        if self.source_mlflow_conn_id is None:
            return self.hook
        return MlflowHook(self.source_mlflow_conn_id)

    @property
    def shares_files(self) -> bool:
        """Whether source and copy are on one server."""
        return self.source_hook.settings.base_url == self.hook.settings.base_url

    @property
    def target(self) -> str:
        """Registered model to copy to."""
        return self.target_model_name or self.model_name

    def act(self, context: Context) -> dict[str, Any]:
        """Copy the version, unless an earlier try, task or Dag has copied it.

        :raises InvalidArgumentError: when an argument is wrong.
        :raises GateRejectedError: when no gate accepted the source.
        :raises EvidenceError: when the source is not READY, does not match its recorded digest, or the copy differs.
        :raises ClaimUnavailableError: when another task is registering the same copy; a retry helps.
        :raises WorkloadError: when the files could not be copied.
        """
        source = self._source()
        name = copy_of(self.source_hook.settings.ui_url, source)
        if flag("dry_run", self.dry_run):
            raise AirflowSkipException(
                f"dry run: version {source.version} of {source.name!r} would be copied to {self.target!r}"
            )
        if found := self._existing(name):
            self.log.info("version %s of %s is a copy of it already", found.version, self.target)
            return self._result(context, found, copied=False)
        work = identity(self.task_key(context), {"action": "copy", "source": name, "target": self.target})
        experiment_id = self.hook.get_or_create_experiment(required_text("experiment_name", self.experiment_name))
        tags = self._run_tags(source, name, work)
        if self.shares_files:
            return self.conclude(context, self._finished_run(context, experiment_id, tags), work)
        if done := self.finished_attempt(context, work, self.attempts(experiment_id, work)):
            return self.conclude(context, done, work)
        run = self.open_run(context, experiment_id, tags)
        return self.run_workload(context, run, work, lambda: self._describe(context, run, source, work))

    def conclude(self, context: Context, run: Run, identity: str) -> dict[str, Any]:
        """Register the copied files as a version, once.

        :raises ResultMissingError: when the run is not finished, or its result is missing.
        """
        self.require_finished(run)
        source = self._source()
        result = None if self.shares_files else self._brought(run, identity)
        self._carry_artifacts(source, run)
        name = copy_of(self.source_hook.settings.ui_url, source)
        claims = Claims(self.hook, self.target, holder=self.actor(context), log=self.log, subject=f"copy {name}")
        made: list[ModelVersion] = []

        def create() -> ModelVersion:
            self._require_permitted(context, source, identity)
            made.append(self._create(context, source, run, result))
            return made[0]

        version = wait_until_ready(self.hook, create_once(claims, lambda: self._existing(name), create))
        mark_model(self.hook, self.target, self.governance.environment)
        if not made and version.tags.get(contract.TAG_COPY_RUN) != run.run_id:
            self.hook.set_tag(run.run_id, contract.TAG_SUPERSEDED_BY, f"{version.name}/{version.version}")
        return self._result(context, version, copied=bool(made))

    def _require_permitted(self, context: Context, source: ModelVersion, identity: str) -> None:
        """Check access and the passport of the source, under the claim and before the version is created."""
        guard = ComplianceGuard(self.source_hook, self.governance, self.target, self.log)
        order = MoveOrder("transition", identity, self.actor(context))
        guard.require("copy", order, self.hook.get_registered_model(self.target), [source])

    @contextmanager
    def at_the_edge(self) -> Iterator[None]:
        """Turn refusals into final failures for Airflow, and close both connections at the end."""
        try:
            with super().at_the_edge():
                yield
        finally:
            if "source_hook" in self.__dict__:
                self.source_hook.close()

    def _finished_run(self, context: Context, experiment_id: str, tags: Mapping[str, str]) -> Run:
        """Return the run of a copy that shares its files: the run of an earlier try, or a new one."""
        usable = (run for run in self.attempts(experiment_id, tags[contract.TAG_IDENTITY]) if run.status in _USABLE)
        run = next(usable, None) or self.open_run(context, experiment_id, tags)
        self.show_run(run)
        if run.status != "FINISHED":
            self.hook.update_run(run.run_id, "FINISHED", int(now().timestamp() * 1000))
        return self.hook.get_run(run.run_id)

    def _source(self) -> ModelVersion:
        """Return the version to copy, after checking that it may be copied."""
        name = required_text("model_name", self.model_name)
        filter_value(self.target)
        if self.shares_files and self.target == name:
            raise InvalidArgumentError(
                f"target_model_name must differ from model_name on the same MLflow server "
                f"({self.hook.settings.base_url}); got {self.target_model_name!r}. Nothing was copied"
            )
        source = self.source_hook.get_model_version(name, version_number("version", self.version))
        require_ready(source)
        source = self._with_present_verdict(source)
        if self.require_gate:
            what = f"version {source.version} of {name!r}"
            if warning := require_passed_gate(what, source.tags.get(contract.TAG_GATE_VERDICT)):
                self.log.warning(warning)
        return source

    def _with_present_verdict(self, source: ModelVersion) -> ModelVersion:
        """Return the source with the gate verdict of its run, which may have been taken back since registration."""
        try:
            verdict = gate_verdict(self.source_hook, source) or ""
        except EvidenceError:  # the run was deleted, so the gate cannot have judged again
            return source
        return replace(source, tags={**source.tags, contract.TAG_GATE_VERDICT: verdict})

    def _existing(self, name: str) -> ModelVersion | None:
        """Return the existing copy: the oldest, if there are two."""
        where = f"name = {filter_value(self.target)} and tags.`{contract.TAG_COPY_OF}` = '{name}'"
        found = self.hook.search_model_versions(where)
        return min(found, key=lambda version: int(version.version), default=None)

    def _describe(self, context: Context, run: Run, source: ModelVersion, work: str) -> Workload:
        plain, secret = self.source_hook.workload_environment()
        request = CopyRequest(
            identity=work,
            run_id=run.run_id,
            model_name=source.name,
            version=source.version,
            source_run_id=source.run_id,
            expected_digest=source.tags.get(contract.TAG_MODEL_DIGEST),
        )
        workload = self.workload(
            context,
            command=self.runtime_command("copy-model"),
            run=run,
            identity=work,
            model_name=self.target,
            files=(WorkloadFile(contract.ENV_REQUEST_PATH, "request.json", dump_document(request)),),
            further=_prefixed(plain),
        )
        return replace(workload, secret_env={**workload.secret_env, **_prefixed(secret)})

    def _brought(self, run: Run, expected: str) -> CopyResult:
        """Return the workload's result."""
        return self.read_result(
            run.run_id, expected, contract.ARTIFACT_COPY, partial(parse_document, CopyResult), "copy"
        )

    def _carry_artifacts(self, source: ModelVersion, run: Run) -> None:
        """Copy the source run's artifacts; for a copy of a copy, those of the original."""
        place = run_of(source)
        if not place:
            return
        copied = {artifact: f"{contract.ARTIFACT_COPIED_DIR}/{artifact}" for artifact in CARRIED_ARTIFACTS}
        there = self.source_hook.existing_artifacts(place, [*copied, *copied.values()])
        for artifact, copy in copied.items():
            if path := next((path for path in (artifact, copy) if path in there), ""):
                self.hook.upload_artifact(run.run_id, copy, self.source_hook.download_artifact(place, path))

    def _create(self, context: Context, source: ModelVersion, run: Run, result: CopyResult | None) -> ModelVersion:
        origin = copied_from(
            self.source_hook.settings.ui_url,
            source,
            at=now().isoformat(),
            by=self.actor(context),
            digest=result.digest if result else source.tags.get(contract.TAG_MODEL_DIGEST, ""),
        )
        tags = copy_tags(
            source,
            origin,
            name=copy_of(self.source_hook.settings.ui_url, source),
            run=run,
            carry_gate_verdict=self.carry_gate_verdict,
        )
        if result is None:  # MLflow wants the run of the source itself there
            return self.hook.create_model_version(self.target, source.uri, tags=tags)
        return self.hook.create_model_version(
            self.target, f"models:/{result.model_id}", run_id=run.run_id, model_id=result.model_id, tags=tags
        )

    def _run_tags(self, source: ModelVersion, name: str, work: str) -> dict[str, str]:
        return {
            contract.TAG_KIND: contract.KIND_COPY,
            contract.TAG_MODEL_NAME: self.target,
            contract.TAG_IDENTITY: work,
            contract.TAG_COPY_OF: name,
            contract.TAG_COPIED_GATE_VERDICT: source.tags.get(contract.TAG_GATE_VERDICT, ""),
        }

    def _result(self, context: Context, version: ModelVersion, *, copied: bool) -> dict[str, Any]:
        self.record(context, partial(version_registered, version))
        run_id = version.tags.get(contract.TAG_COPY_RUN, "")
        if run_id:
            self.hook.set_tag(run_id, contract.TAG_MODEL_VERSION, f"{version.name}/{version.version}")
        self.mlflow_model_version_url = self.hook.model_version_url(version.name, version.version)
        origin = read_copied_from(version.tags)
        self.log.info("version %s of %s is a copy of %s", version.version, version.name, origin)
        return {
            "model_name": version.name,
            "version": version.version,
            "model_uri": version.uri,
            "run_id": run_id,
            "digest": version.tags.get(contract.TAG_MODEL_DIGEST, ""),
            "copied": copied,
        }


def _prefixed(variables: Mapping[str, str]) -> dict[str, str]:
    return {f"{contract.ENV_SOURCE_MLFLOW_PREFIX}{name}": value for name, value in variables.items()}
