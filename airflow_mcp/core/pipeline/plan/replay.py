"""``spec.replay`` as arguments of the replay and as a rule of the gate."""

from __future__ import annotations

from typing import Any

from airflow_mcp.core.pipeline.file.replay import Replay
from airflow_mcp.core.pipeline.file.source import Data

_READ = ("requests", "last", "timestamp_column", "request_id_column", "prediction_column", "value_column")
_TOLERATED = ("tolerance", "relative_tolerance")
_JUDGED = ("max_flip_rate", "max_segment_flip_rate", "min_requests", "min_segment_requests", "confidence")


def replay_arguments(asked: Replay, data: Data) -> dict[str, Any]:
    """Return the arguments of the replay that do not depend on other tasks.

    :param asked: ``spec.replay``.
    :param data: the data of the pipeline, for the model type.
    """
    given = {name: getattr(asked, name) for name in (*_READ, *_TOLERATED)}
    arguments = {
        "model_type": data.model_type,
        "positive_label": data.positive_label,
        **given,
        "segments": list(asked.segments) or None,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def replay_rule(asked: Replay) -> dict[str, Any]:
    """Return the gate's argument ``replay``.

    :param asked: ``spec.replay``.
    """
    rule = {name: getattr(asked, name) for name in _JUDGED if getattr(asked, name) is not None}
    return {**rule, **({"segments": list(asked.segments)} if asked.segments else {})}
