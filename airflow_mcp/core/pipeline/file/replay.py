"""Fields of a pipeline file about logged requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from airflow_mcp.core.evaluation.replay import MAX_LAST
from airflow_mcp.core.pipeline.file.fields import ExpandableText, Number, SpecModel, Text, Whole

Share = Annotated[Number, Field(gt=0, le=1)]


class Replay(SpecModel):
    """How many logged requests may be answered differently."""

    requests: ExpandableText = Field(description="File, folder or glob of logged requests, Parquet or JSON Lines.")
    max_flip_rate: Share = Field(description="Largest share of requests that may be answered differently; above 0.")
    last: Annotated[Whole, Field(ge=1, le=MAX_LAST)] = Field(
        10_000, description="How many of the newest requests are replayed."
    )
    timestamp_column: Text | None = Field(None, description="Time of a request. Default: the order of the files.")
    request_id_column: Text | None = Field(None, description="Name of a request. Default: its number.")
    prediction_column: Text | None = Field(None, description="What production answered. Default: not compared.")
    value_column: Text | None = Field(None, description="What a request is worth. Default: not summed.")
    segments: tuple[Text, ...] = Field(default=(), description="Columns in each of whose segments the share is judged.")
    max_segment_flip_rate: Share | None = Field(None, description="Largest share there. Default: maxFlipRate.")
    tolerance: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="Regression only: a change up to this, in units of the prediction, is no flip."
    )
    relative_tolerance: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="Regression only: a change up to this share of the champion's prediction is no flip."
    )
    min_requests: Annotated[Whole, Field(ge=1)] = Field(
        1_000, description="With fewer requests the gate is inconclusive."
    )
    min_segment_requests: Annotated[Whole, Field(ge=1)] = Field(
        100, description="With fewer requests in a segment the gate is inconclusive."
    )
    confidence: Annotated[Number, Field(gt=0, lt=1)] = Field(0.95, description="Of the interval of the share.")
