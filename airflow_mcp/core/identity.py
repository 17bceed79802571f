"""Names of pieces of work: equal inputs give equal names, by which retries find existing results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

PARENT_RUN = "parent_run"
"""Key of a Dag run's conf: Dag and run that triggered it, as ``{"dag_id": …, "dag_run_id": …}``."""
_IDENTITY_LENGTH = 32


def canonical_json(value: Any) -> str:
    """Return JSON text with sorted keys and no spaces, so that equal values give equal text.

    :param value: JSON values only.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """Hash plain JSON values.

    :param value: JSON values only.
    :return: SHA-256 of the canonical JSON, 64 hexadecimal characters.
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def content_hash(data: bytes) -> str:
    """Hash bytes as datasets, configs and scripts are recorded: ``sha256:<hex>``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class WorkloadInputs:
    """Everything that decides the result of a workload; empty text stands for a part that is not used."""

    command: tuple[str, ...]
    code_commit: str = ""
    """Latest commit that changed the folder of the code."""
    code_hash: str = ""
    config_hash: str = ""
    data: str = ""
    """Hash of the dataset, or ``version:<label>`` when the hash is not known before the work starts."""
    image: str = ""

    @property
    def fingerprint(self) -> str:
        """Name of these inputs, wherever and whenever they are used."""
        return fingerprint(asdict(self))


@dataclass(frozen=True)
class TaskKey:
    """The Airflow task that needs the work; without the try number, so that a retry finds it."""

    dag_id: str
    dag_run_id: str
    task_id: str
    map_index: int = -1


def identity(task: TaskKey, inputs: Mapping[str, Any]) -> str:
    """Return the name of a piece of work of one task: equal on every retry, different when any input differs.

    :param task: the task that needs the work done.
    :param inputs: plain JSON values that decide the result.
    :return: 32 hexadecimal characters (the first half of a SHA-256).
    """
    return fingerprint({"task": asdict(task), "inputs": dict(inputs)})[:_IDENTITY_LENGTH]
