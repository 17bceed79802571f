"""The replay of logged requests in a pipeline file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from airflow_mcp.core.evaluation.replay import MAX_LAST
from airflow_mcp.core.pipeline.file.fields import ExpandableText, Number, SpecModel, Text, Whole

Share = Annotated[Number, Field(gt=0, le=1)]


class Replay(SpecModel):
    """Which logged requests are replayed, and for how many the prediction may change."""

    requests: ExpandableText = Field(description="File, folder or glob of logged requests; Parquet or JSON Lines.")
    max_flip_rate: Share = Field(description="Largest share of requests whose prediction may change (flip); above 0.")
    last: Annotated[Whole, Field(ge=1, le=MAX_LAST)] = Field(
        10_000, description="How many of the newest requests to replay."
    )
    timestamp_column: Text | None = Field(
        None, description="Column with the time of a request. Default: the order of the files."
    )
    request_id_column: Text | None = Field(None, description="Column with the id of a request. Default: its position.")
    prediction_column: Text | None = Field(
        None, description="Column with production's prediction. Default: not compared."
    )
    value_column: Text | None = Field(None, description="Column with the value of a request. Default: not summed.")
    segments: tuple[Text, ...] = Field(
        default=(), description="Columns; the share is judged for each of their values as well."
    )
    max_segment_flip_rate: Share | None = Field(None, description="Largest share per segment. Default: maxFlipRate.")
    tolerance: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="Regressors only: a change up to this, in units of the prediction, does not count as a flip."
    )
    relative_tolerance: Annotated[Number, Field(gt=0)] | None = Field(
        None,
        description="Regressors only: a change up to this share of the champion's prediction does not count as a flip.",
    )
    min_requests: Annotated[Whole, Field(ge=1)] = Field(
        1_000, description="With fewer requests the gate is inconclusive."
    )
    min_segment_requests: Annotated[Whole, Field(ge=1)] = Field(
        100, description="With fewer requests in a segment the gate is inconclusive."
    )
    confidence: Annotated[Number, Field(gt=0, lt=1)] = Field(
        0.95, description="Confidence of the interval of the share."
    )
