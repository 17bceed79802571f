"""Replay the newest logged production requests through a candidate and the champion."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import ValidationError

from airflow_mcp.core import contract
from airflow_mcp.core.argument import NO_CHAMPION, choice, problems_of, required_text, whole_number
from airflow_mcp.core.data.dataset import public_uri
from airflow_mcp.core.data.logged_requests import CHAMPION_ROLES, LogRole
from airflow_mcp.core.document import dump_document, parse_document
from airflow_mcp.core.evaluation.evidence import ModelType, ModelUnderTest
from airflow_mcp.core.evaluation.replay import ReplayEvidence, ReplayRequest
from airflow_mcp.core.identity import identity
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.core.workload.definition import Workload, WorkloadFile
from airflow_mcp.exceptions import EvidenceError, InvalidArgumentError, ResultMissingError
from airflow_mcp.links.mlflow import MlflowRunLink
from airflow_mcp.operators.base import require_active
from airflow_mcp.operators.workload import WorkloadOperator
from airflow_mcp.registry.aliases import champion_of

if TYPE_CHECKING:
    from airflow.sdk import Context


class ReplayModelOperator(WorkloadOperator):
    """Replay logged requests and compare the candidate's answers with the champion's.

    The evidence counts flips (another class, or a number that changed by more than a tolerance), overall and per
    segment, how much answers change, what the flipped requests are worth, and requests that a model cannot answer. It
    is stored in the candidate's MLflow run and judged by the gate's ``replay`` rule. A retry that finds a complete
    replay does not repeat it. Without a champion nothing is replayed.

    XCom: ``run_id``, ``model_uri``, ``identity``, ``champion_version`` (``none`` when there is no champion),
    ``requests``, ``compared``, ``flips``, ``changed_share`` (None when nothing was compared).

    :param run_id: the candidate's MLflow run (templated).
    :param model_uri: the candidate, for example ``models:/<model id>`` (templated).
    :param model_name: registered model whose champion is compared with (templated).
    :param requests: logged requests: file, folder or glob of Parquet or JSON Lines, a path or a URL (templated).
    :param model_type: ``classifier`` or ``regressor``.
    :param last: how many of the newest requests are replayed (templated).
    :param log: ``serving`` when the requests are the prediction log of the model server: the columns with time, id and
        prediction are then known, and need not be named.
    :param roles: of such a log: roles whose answers are replayed; ``shadow`` only alone, because its rows are copies.
    :param timestamp_column: column with the time of a request; None orders by file name and row.
    :param request_id_column: column with the id of a request, shown in the examples.
    :param prediction_column: column with production's answer, which is compared with the champion's answer now.
    :param value_column: column with the value of a request, for example an amount of money.
    :param segments: columns; everything is also counted for each of their values.
    :param positive_label: of two classes, the one whose probability is compared; None takes the greater.
    :param tolerance: for a regressor, the largest change that does not count as a flip, in units of the prediction.
    :param relative_tolerance: the same, as a share of the champion's prediction.
    :param examples: how many flips to keep as examples, at most 100.
    """

    template_fields: Sequence[str] = (
        *WorkloadOperator.template_fields,
        "run_id",
        "model_uri",
        "model_name",
        "requests",
        "last",
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
        requests: str,
        model_type: ModelType,
        last: int | str = 10_000,
        log: Literal["", "serving"] = "",
        roles: Sequence[LogRole] = CHAMPION_ROLES,
        timestamp_column: str | None = None,
        request_id_column: str | None = None,
        prediction_column: str | None = None,
        value_column: str | None = None,
        segments: Sequence[str] = (),
        positive_label: str | int | float | bool | None = None,
        tolerance: float = 0.0,
        relative_tolerance: float = 0.0,
        examples: int = 20,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run_id = run_id
        self.model_uri = model_uri
        self.model_name = model_name
        self.requests = requests
        self.model_type = model_type
        choice("model_type", model_type, get_args(ModelType))
        self.last = last
        self.request_log = choice("log", log, ("", "serving"))
        self.roles = roles
        self.timestamp_column = timestamp_column
        self.request_id_column = request_id_column
        self.prediction_column = prediction_column
        self.value_column = value_column
        self.segments = segments
        self.positive_label = positive_label
        self.tolerance = tolerance
        self.relative_tolerance = relative_tolerance
        self.examples = examples
        nobody = ModelUnderTest(model_uri="models:/checked-when-the-dag-is-parsed")
        self._request_of("", nobody, nobody, "requests", last=1)

    def act(self, context: Context) -> dict[str, Any]:
        """Find the replay of an earlier try, or replay.

        :raises EvidenceError: when the candidate's run is deleted.
        :raises WorkloadError: when the replay fails or leaves no evidence.
        """
        run = self.hook.get_run(required_text("run_id", self.run_id))
        require_active(run)
        self.show_run(run)
        champion = champion_of(self.hook, required_text("model_name", self.model_name))
        model_uri, source = required_text("model_uri", self.model_uri), required_text("requests", self.requests)
        if champion is None:
            self.log.info("%s has no champion yet; nothing is replayed", self.model_name)
            return {**_nothing(run, model_uri), "champion_version": NO_CHAMPION}
        self.log.info("The champion of %s is version %s", self.model_name, champion.version)
        request = self._request_of(
            run.run_id,
            ModelUnderTest(model_uri=model_uri, run_id=run.run_id),
            ModelUnderTest(model_uri=champion.uri, run_id=champion.run_id, version=champion.version),
            source,
            last=whole_number("last", self.last),
        )
        asked = request.model_dump(mode="json", exclude={"identity", "run_id"})
        request = request.model_copy(update={"identity": identity(self.task_key(context), {"replay": asked})})
        evidence = self._existing(request)
        if evidence is not None:
            self.forget_workload(context, request.identity)
            return self._result(evidence)
        return self.run_workload(context, run, request.identity, lambda: self._describe(context, run, request))

    def conclude(self, context: Context, run: Run, identity: str) -> dict[str, Any]:
        """Read the evidence back from the run.

        :raises ResultMissingError: when it is missing, or about another replay.
        """
        require_active(run)
        return self._result(self._collect(run.run_id, identity))

    def _request_of(
        self, run_id: str, candidate: ModelUnderTest, champion: ModelUnderTest, source: str, *, last: int
    ) -> ReplayRequest:
        """Build the request, still without its identity; also run at parse time, to refuse wrong arguments early."""
        try:
            return ReplayRequest(
                identity="",
                run_id=run_id,
                candidate=candidate,
                champion=champion,
                source=source,
                model_type=self.model_type,
                last=last,
                log=self.request_log,
                roles=tuple(self.roles),
                timestamp_column=self.timestamp_column or "",
                request_id_column=self.request_id_column or "",
                prediction_column=self.prediction_column or "",
                value_column=self.value_column or "",
                segments=tuple(self.segments),
                positive_label=self.positive_label,
                tolerance=self.tolerance,
                relative_tolerance=self.relative_tolerance,
                examples=self.examples,
            )
        except ValidationError as error:
            problems = problems_of(error, "arguments", ReplayRequest, then="Nothing was replayed")
            raise InvalidArgumentError(problems) from None

    def _describe(self, context: Context, run: Run, request: ReplayRequest) -> Workload:
        return self.workload(
            context,
            command=self.runtime_command("replay"),
            run=run,
            identity=request.identity,
            model_name=self.model_name,
            files=(WorkloadFile(contract.ENV_REQUEST_PATH, "request.json", dump_document(request)),),
        )

    def _existing(self, request: ReplayRequest) -> ReplayEvidence | None:
        try:
            evidence = self._collect(request.run_id, request.identity)
        except (ResultMissingError, EvidenceError):
            return None
        self.log.info("An earlier try of this task already replayed; its evidence is used")
        return evidence

    def _collect(self, run_id: str, expected: str) -> ReplayEvidence:
        return self.read_result(
            run_id, expected, contract.ARTIFACT_REPLAY, partial(parse_document, ReplayEvidence), "replay"
        )

    def _result(self, evidence: ReplayEvidence) -> dict[str, Any]:
        self._show(evidence)
        return {
            "run_id": evidence.run_id,
            "model_uri": evidence.candidate.model_uri,
            "identity": evidence.identity,
            "champion_version": evidence.champion.version,
            "requests": evidence.requests,
            "compared": evidence.compared,
            "flips": evidence.flips,
            "changed_share": evidence.changed / evidence.judged if evidence.judged else None,
        }

    def _show(self, evidence: ReplayEvidence) -> None:
        self.log.info(
            "%d of %d logged requests in %s replayed: %d compared, %d flips",
            evidence.requests,
            evidence.available,
            public_uri(evidence.source),
            evidence.compared,
            evidence.flips,
        )
        for who, troubles in (("candidate", evidence.candidate_troubles), ("champion", evidence.champion_troubles)):
            if troubles.unfit or troubles.failed:
                self.log.warning(
                    "The %s did not answer %d unfit and %d failed requests", who, troubles.unfit, troubles.failed
                )
                for item in troubles.reasons:
                    self.log.warning("  %d times: %s", item.requests, item.reason)
        for part in sorted(evidence.segments, key=lambda item: -item.flips):
            self.log.info("  %s=%s: %d flips of %d", part.column, part.value, part.flips, part.compared)


def _nothing(run: Run, model_uri: str) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "model_uri": model_uri,
        "identity": "",
        "requests": 0,
        "compared": 0,
        "flips": 0,
        "changed_share": None,
    }
