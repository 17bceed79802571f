"""Names for pieces of work: same inputs, same name. Retries find what exists by these names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_IDENTITY_LENGTH = 32


def canonical_json(value: Any) -> str:
    """Write plain JSON values so that equal values give equal text.

    :param value: JSON values only.
    :return: JSON with sorted keys and no spaces.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """Hash plain JSON values.

    :param value: JSON values only.
    :return: SHA-256 of the canonical JSON, 64 hexadecimal characters.
    """
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def content_hash(data: bytes) -> str:
    """Hash bytes the way datasets, configs and scripts are recorded: ``sha256:<hex>``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class WorkloadInputs:
    """Everything that decides what a workload produces. An empty string means that the part is not used."""

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
    """Which Airflow task is asking; the try number is left out on purpose."""

    dag_id: str
    dag_run_id: str
    task_id: str
    map_index: int = -1


def identity(task: TaskKey, inputs: Mapping[str, Any]) -> str:
    """Name one piece of work of one task: the same on every retry, different when any input differs.

    :param task: the task that needs the work done.
    :param inputs: plain JSON values that decide the result.
    :return: 32 hexadecimal characters (the first half of a SHA-256).
    """
    return fingerprint({"task": asdict(task), "inputs": dict(inputs)})[:_IDENTITY_LENGTH]
