"""Every error of the package.

::

    ModelControlPlaneError
    ├── RefusedError (ValueError)            nothing was done; a retry gives the same answer
    │   ├── InvalidArgumentError             an argument, a config file or a policy is wrong
    │   ├── SourceError                      the requested code is not in the Git repository
    │   ├── DatasetError                     data is missing, unreadable, empty or not what was pinned
    │   ├── EvidenceError                    evidence is missing, malformed or about something else
    │   ├── GateRejectedError                the gate's verdict forbids the step
    │   ├── AliasConflictError               an alias does not point where the caller compared
    │   ├── RolloutConflictError             somebody else writes the split of a model, or its champion has moved
    │   ├── AuditConflictError               the audit log has another event of the same ID
    │   ├── AccessRefusedError               the policy in force does not permit it, or nobody knows who asks
    │   ├── ApprovalMissingError             the people whom the policy names have not approved it
    │   ├── PassportError                    a passport is missing, forged, or is not of this version
    │   ├── RolloutFailedError               a rollout gave all requests back to the champion, or was overtaken
    │   ├── ManifestRefusedError             Kubernetes refuses an object of a model server
    │   ├── ModelServerFailedError           the pods of a model server did not become ready, or somebody took over
    │   ├── LoadCheckFailedError             a model version does not load, or does not answer as it should
    │   ├── RehearsalFailedError             the way back of a model takes too long, or would be refused
    │   └── PipelineSpecError                a ModelPipeline file is wrong; it lists every problem
    └── FailedError (RuntimeError)           something failed on the way; a retry may succeed
        ├── MlflowError                      the MLflow server answered with an error
        │   ├── MlflowUnreachableError       no answer: refused, timed out, TLS, name resolution
        │   ├── MlflowAuthError              401 or 403
        │   ├── MlflowNotFoundError          run, model, version, alias or artifact does not exist
        │   ├── MlflowConflictError          it exists already
        │   └── MlflowProtocolError          the answer is not MLflow's (HTML, broken JSON, missing field)
        ├── ServerUnreachableError           a replica of a model server does not answer
        ├── DataUnreachableError             a server that holds data does not answer
        ├── GitRemoteError                   a Git remote does not answer
        │   └── GitAuthError                 it refuses the credentials, or requires some
        ├── ClaimUnavailableError            another task moves or registers the same model
        ├── LedgerConflictError              somebody else wrote to a retrain ledger at the same time
        ├── AuditUnavailableError            the audit log does not answer; nothing moves unrecorded
        ├── AnchorError                      a place for checkpoints of the audit log cannot be used
        ├── AirflowApiError                  Airflow's REST API does not answer, or refuses
        ├── EngineError                      a cluster of Spark or Dask does not answer, or failed
        ├── ClusterUnreachableError          Kubernetes does not answer; what runs there goes on running
        └── WorkloadError                    a workload failed
            ├── WorkloadFailedError          it ended with a non-zero exit code or by a signal
            ├── WorkloadTimeoutError         it ran longer than allowed and was stopped
            ├── WorkloadLostError            it disappeared: how it ended is unknown
            └── ResultMissingError           it succeeded without the promised result

Nothing here imports Airflow: the work plane uses the same errors. Operators turn every ``RefusedError`` into
Airflow's ``AirflowFailException``, because a retry cannot change the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ModelControlPlaneError(Exception):
    """Base of every error raised by this package."""


class RefusedError(ModelControlPlaneError, ValueError):
    """The input was refused before anything was changed; a retry gives the same answer."""


class InvalidArgumentError(RefusedError):
    """An argument, a config file or a policy is not usable; the message names it, its value and what is allowed."""


class SourceError(RefusedError):
    """A Git repository, or a branch, tag, commit or file in it, does not exist or is ambiguous."""


class DatasetError(RefusedError):
    """A dataset is missing, unreadable, empty, or is not the one that was pinned."""


class EvidenceError(RefusedError):
    """The evidence for a decision is missing, malformed, or belongs to another run, model or dataset."""


class GateRejectedError(RefusedError):
    """The evaluation gate did not pass; its report is in the MLflow run."""


class AliasConflictError(RefusedError):
    """An alias no longer points at the version that the caller compared with; nothing was moved."""


class RolloutConflictError(RefusedError):
    """Somebody else has written the split of a model's traffic, or its champion has moved; nothing was written."""


class AuditConflictError(RefusedError):
    """The audit log has another event of the same ID, or says something else than MLflow; nothing was recorded."""


class AccessRefusedError(RefusedError):
    """The policy in force does not permit it, there is none where one is needed, or nobody knows who asks."""


class ApprovalMissingError(RefusedError):
    """The people whom the policy in force names have not approved the model as it is; nothing was moved."""


class PassportError(RefusedError):
    """A passport is missing, its signature does not count, or it is of another version; nothing was changed."""


class RolloutFailedError(RefusedError):
    """A rollout has ended without success; its report is in its MLflow run, and a retry finds the same end."""


class ManifestRefusedError(RefusedError):
    """Kubernetes refuses an object: it is not valid, its API is missing, or a field belongs to somebody else."""


class ModelServerFailedError(RefusedError):
    """The pods of a model server did not become ready in time, or somebody else has changed its Deployment."""


class LoadCheckFailedError(RefusedError):
    """A model version failed its load check: it gets no alias until a later check passes."""


class RehearsalFailedError(RefusedError):
    """A rollback would take longer than allowed, or would be refused now; nothing was moved."""


class SpecProblem(NamedTuple):
    """One problem in a ModelPipeline file; line and column count from 1."""

    file: str
    line: int
    column: int
    field: str
    """Path of the field, for example ``spec.stages[1].image``; empty for the whole file."""
    message: str
    """The problem, and what is allowed."""

    def __str__(self) -> str:
        """Return ``file:line:column: field: problem``."""
        field = f"{self.field}: " if self.field else ""
        return f"{self.file}:{self.line}:{self.column}: {field}{self.message}"


class PipelineSpecError(RefusedError):
    """A ModelPipeline file cannot be used.

    :param problems: every problem, in the order of the file.
    """

    def __init__(self, problems: Sequence[SpecProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[PipelineSpecError], tuple[tuple[SpecProblem, ...]]]:
        """Keep the problems through pickling."""
        return type(self), (self.problems,)


class FailedError(ModelControlPlaneError, RuntimeError):
    """Something failed on the way; a retry may succeed."""


class MlflowError(FailedError):
    """The MLflow server answered a request with an error.

    :param message: what was asked, what came back, what happens next; never a credential.
    :param status: HTTP status of the answer, or None when there was none.
    :param error_code: MLflow's own error code (for example ``RESOURCE_DOES_NOT_EXIST``), or None.
    """

    def __init__(self, message: str, status: int | None = None, error_code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code

    @property
    def is_final(self) -> bool:
        """Whether the server would refuse the same request again: a wrong value, or a body that is too large."""
        return self.error_code == "INVALID_PARAMETER_VALUE" or self.status == 413

    def __reduce__(self) -> tuple[type[MlflowError], tuple[str, int | None, str | None]]:
        """Keep status and error code through pickling (Airflow moves exceptions between processes)."""
        return type(self), (str(self), self.status, self.error_code)


class MlflowUnreachableError(MlflowError):
    """No usable answer: connection refused, time-out, TLS failure, name not resolved."""


class MlflowAuthError(MlflowError):
    """The server refused the credentials of the connection (401) or the right to do this (403)."""


class MlflowNotFoundError(MlflowError):
    """The experiment, run, model, version, alias or artifact does not exist on the server."""


class MlflowConflictError(MlflowError):
    """The object to create exists already."""


class MlflowProtocolError(MlflowError):
    """The answer did not come from an MLflow server: HTML, broken JSON, or a field is missing."""


class ServerUnreachableError(FailedError):
    """A replica of a model server does not answer, or not as a model server does; the next look tries again."""


class DataUnreachableError(FailedError):
    """A server that holds data gives no usable answer; nothing was changed and a retry may succeed."""


class GitRemoteError(FailedError):
    """A Git remote does not answer, or not in time; nothing was changed and a retry may succeed."""


class GitAuthError(GitRemoteError):
    """A Git remote refuses the credentials of the connection, or requires some and none were given."""


class ClaimUnavailableError(FailedError):
    """Another task moves the aliases, or registers the same model; nothing was changed and a retry may succeed."""


class LedgerConflictError(FailedError):
    """Another task wrote to the retrain ledger of a model at the same time; a retry reads it again."""


class AuditUnavailableError(FailedError):
    """The audit log does not answer. A move that was not recorded first is not made; a retry adds nothing twice."""


class AnchorError(FailedError):
    """A place for checkpoints of the audit log cannot be written or read; other places are used all the same."""


class EngineError(FailedError):
    """A cluster of Spark or Dask does not answer, or failed; only profiles would have left it, so nothing remains."""


class AirflowApiError(FailedError):
    """Airflow's REST API does not answer, or refuses a request.

    :param message: what was asked, what came back, what to do; never a credential.
    :param status: HTTP status of the answer, or None when there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[AirflowApiError], tuple[str, int | None]]:
        """Keep the status through pickling."""
        return type(self), (str(self), self.status)


class ClusterUnreachableError(FailedError):
    """Kubernetes does not answer. The pod continues, and a retry attaches to it again."""


class WorkloadError(FailedError):
    """A workload failed."""


class WorkloadFailedError(WorkloadError):
    """A workload ended with a non-zero exit code or by a signal.

    :param message: what ran and how it ended, with the last lines of its output.
    :param exit_code: the exit code; negative is the number of the signal that ended it.
    :param last_lines: the last lines of its output, oldest first.
    """

    def __init__(self, message: str, exit_code: int, last_lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.last_lines = tuple(last_lines)

    def __reduce__(self) -> tuple[type[WorkloadFailedError], tuple[str, int, tuple[str, ...]]]:
        """Keep exit code and output through pickling."""
        return type(self), (str(self), self.exit_code, self.last_lines)


class WorkloadTimeoutError(WorkloadError):
    """A workload ran longer than its timeout and was stopped with everything it had started."""


class WorkloadLostError(WorkloadError):
    """A workload disappeared with its pod, so only its MLflow run shows how it ended."""


class ResultMissingError(WorkloadError):
    """A workload ended without an error, but its MLflow run does not hold the promised result."""
