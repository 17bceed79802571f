"""Protocols between the layers."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol


class TaskLog(Protocol):
    """The part of a logger that is used outside operators: ``logging.Logger`` and Airflow's task logger have it."""

    def info(self, msg: str, /, *args: object) -> Any:
        """Log ``msg % args`` as information."""

    def warning(self, msg: str, /, *args: object) -> Any:
        """Log ``msg % args`` as a warning."""


class WorkResult(Protocol):
    """A document that a workload stores in an MLflow run."""

    @property
    def identity(self) -> str:
        """Identity of the piece of work."""

    @property
    def run_id(self) -> str:
        """The run that holds it."""


class Signature(NamedTuple):
    """A signature, and the key that it is of."""

    key_id: str
    value: bytes


class Signer(Protocol):
    """What signs passports and clearances: a private key, or a key management service."""

    @property
    def public_pem(self) -> str:
        """The public key, PEM."""

    def sign(self, message: bytes) -> Signature:
        """Sign a message.

        :raises FailedError: when a service that holds the key does not answer.
        """
