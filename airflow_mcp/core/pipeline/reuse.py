"""What must hold before a run that starts at a later stage reuses the results of an earlier run."""

from __future__ import annotations

from airflow_mcp.core import contract
from airflow_mcp.core.data.dataset import data_name
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence
from airflow_mcp.core.gate.judgement import GateReport
from airflow_mcp.core.gate.policy import GatePolicy
from airflow_mcp.core.gate.rules.verdicts import Verdict
from airflow_mcp.core.mlflow_entities import Run
from airflow_mcp.exceptions import EvidenceError, GateRejectedError

_NOTHING_DONE = "Nothing was reused; start at an earlier stage, or name another run"


def why_not_reusable(run: Run, *, model_name: str, experiment_id: str | None = None) -> str:
    """Return why the model of a run cannot be reused.

    :param run: a training run.
    :param model_name: registered model that it must have been trained for.
    :param experiment_id: experiment that it must be in; None accepts any.
    :return: every reason; an empty text when it can be reused.
    """
    meant_for = run.tags.get(contract.TAG_MODEL_NAME, "")
    problems = {
        f"it is {run.lifecycle_stage}": run.lifecycle_stage != "active",
        f"it is {run.status}, not FINISHED": run.status != "FINISHED",
        "it is not a training run of airflow-mcp": run.tags.get(contract.TAG_KIND) != contract.KIND_TRAINING,
        f"it was trained for model {meant_for!r}, not {model_name!r}": meant_for != model_name,
        "it is in another experiment": experiment_id is not None and run.experiment_id != experiment_id,
        "it logged no model": not run.model_ids,
    }
    return "; ".join(problem for problem, holds in problems.items() if holds)


def require_reusable(run: Run, *, model_name: str, experiment_id: str | None = None) -> None:
    """Refuse a run whose model cannot be reused; the parameters are those of :func:`why_not_reusable`.

    :raises EvidenceError: when it cannot be reused, with every reason.
    """
    problem = why_not_reusable(run, model_name=model_name, experiment_id=experiment_id)
    if problem:
        raise EvidenceError(f"MLflow run {run.run_id} cannot be reused: {problem}. {_NOTHING_DONE}")


def require_evidence(evidence: EvaluationEvidence, *, run_id: str, model_uri: str, pin: DatasetPin | None) -> None:
    """Refuse evidence that is not about this model on this data.

    :param evidence: evidence of an earlier evaluation.
    :param run_id: the candidate's run.
    :param model_uri: the candidate.
    :param pin: data that it must have been measured on; None for self-reported evidence.
    :raises EvidenceError: when it is about something else, naming what differs.
    """
    about = (evidence.run_id, evidence.candidate.model_uri)
    if about != (run_id, model_uri):
        raise EvidenceError(
            f"the evidence in MLflow run {run_id} is about {about[1]} of run {about[0]}, not {model_uri}. "
            f"{_NOTHING_DONE}"
        )
    used = evidence.dataset
    same = pin is used if pin is None or used is None else _same_data(pin, used)
    if not same:
        raise EvidenceError(
            f"the evidence in MLflow run {run_id} was measured on {_words(used)}, and this run uses {_words(pin)}. "
            f"{_NOTHING_DONE}"
        )


def require_passing_report(
    report: GateReport, evidence: EvaluationEvidence, *, model_name: str, policy: GatePolicy
) -> None:
    """Refuse a gate report that did not accept exactly this candidate by exactly these rules.

    :param report: report of an earlier gate.
    :param evidence: the run's present evidence.
    :param model_name: registered model that the candidate was trained for.
    :param policy: the present rules.
    :raises EvidenceError: when the report is about something else, or was made by other rules.
    :raises GateRejectedError: when it did not accept the candidate, or did so in another mode.
    """
    judged = (report.run_id, report.evidence_identity, report.model_name)
    asked = (evidence.run_id, evidence.identity, model_name)
    if judged != asked:
        raise EvidenceError(
            f"the gate report in MLflow run {evidence.run_id} is about run, evaluation and model {judged}, not "
            f"{asked}. {_NOTHING_DONE}"
        )
    rules = {rule.rule for rule in report.rules}
    new = [rule for rule in policy.rules() if rule not in rules]
    if new:
        raise EvidenceError(
            f"the gate report in MLflow run {report.run_id} does not have the rule {'; '.join(new)}. {_NOTHING_DONE}"
        )
    if not report.opens:
        raise GateRejectedError(
            f"the gate report in MLflow run {report.run_id} says {report.verdict}: {report.reason}. {_NOTHING_DONE}"
        )
    if report.verdict is not Verdict.PASSED and report.mode != policy.mode:
        raise GateRejectedError(
            f"the gate report in MLflow run {report.run_id} says {report.verdict} and accepted the candidate in "
            f"mode {report.mode}; the mode is {policy.mode} now. {_NOTHING_DONE}"
        )


def _same_data(pin: DatasetPin, used: DatasetPin) -> bool:
    if pin.hash and used.hash:
        return pin.hash == used.hash
    return (pin.uri, pin.version) == (used.uri, used.version)


def _words(pin: DatasetPin | None) -> str:
    return "no data (self-reported)" if pin is None else data_name(pin)
