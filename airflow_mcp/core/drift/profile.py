"""Profiles: the distribution of every column of a dataset, small enough to store with a model version.

A profile is JSON, at most :data:`BYTES_PER_COLUMN` per column on average. It says how far it may be from the data it
was made of.
"""

from __future__ import annotations

import itertools
import json
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import Document, parse_document

PROFILE_SCHEMA: Literal["airflow_mcp/profile/1"] = "airflow_mcp/profile/1"
BYTES_PER_COLUMN = 655
"""Largest average size of a stored profile per column: 64 KiB for 100 columns. Of a column's name, what is longer than
100 bytes comes on top."""

ColumnType = Literal["numerical", "categorical"]
ColumnKind = Literal["numerical", "categorical", "text", "time", "other", "empty"]
"""``text`` has too many distinct values to be categories; ``other`` is nested or binary; ``empty`` has no value."""
ColumnRole = Literal["feature", "prediction", "target", "quality"]
"""Role of a column for the model; ``quality`` is the quality of each prediction."""
Count = Annotated[int, Field(ge=0)]


class Distribution(Document):
    """Cumulative distribution of the finite numbers of a column, from its smallest to its largest value.

    Rows between two neighbouring values are taken as spread evenly. Where none are between, nothing is lost.
    """

    values: tuple[float, ...]
    """Ascending; the first is the minimum, the last the maximum."""
    at: tuple[Count, ...]
    """Rows at each value."""
    between: tuple[Count, ...] = ()
    """Rows between each value and the next; empty when there are none anywhere."""
    mean: float
    variance: Annotated[float, Field(ge=0)]
    """Variance of the population."""
    rank_error: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Largest error of the share of rows below any value."""
    distance_error: Annotated[float, Field(ge=0)] = 0.0
    """Largest Wasserstein distance to the true distribution, in units of the column."""
    distinct: Count | None = None
    """Number of distinct values, if more than are kept and if counted."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        values = self.values
        if not values or any(low >= high for low, high in itertools.pairwise(values)):
            raise ValueError("values must be ascending and not empty; got another order or none")
        if len(self.at) != len(values) or len(self.between) not in (0, len(values) - 1):
            raise ValueError(
                f"{len(values)} values need {len(values)} counts in at, and {len(values) - 1} or none in between"
            )
        return self

    @property
    def rows(self) -> int:
        """Number of finite values."""
        return sum(self.at) + sum(self.between)

    @property
    def is_exact(self) -> bool:
        """Whether every distinct value and its count are kept."""
        return not any(self.between) and not self.rank_error


class Categories(Document):
    """Rows per category, most frequent first."""

    counts: dict[str, Count]
    """Categories that are kept."""
    other: Count = 0
    """Rows of all other categories."""
    error: Count = 0
    """Largest number of rows that a count is too low; counts are never too high, and a category not kept counts 0."""
    distinct: Count | None = None
    """Number of categories; None when there are too many to count."""

    @property
    def rows(self) -> int:
        """Number of values."""
        return sum(self.counts.values()) + self.other

    @property
    def is_exact(self) -> bool:
        """Whether every category and its count are kept."""
        return not self.other and not self.error


class ColumnProfile(Document):
    """The profile of one column."""

    name: str
    kind: ColumnKind
    type: str
    """Type as it was read, for example ``int64``; several joined by ``|`` when the values are mixed."""
    role: ColumnRole = "feature"
    missing: Count = 0
    """Rows without a value (null)."""
    nan: Count = 0
    """Rows with NaN; they count as missing in every comparison."""
    positive_infinite: Count = 0
    negative_infinite: Count = 0
    distribution: Distribution | None = None
    """Distribution of numbers, or of times in seconds since 1970; None without a finite value."""
    categories: Categories | None = None

    @property
    def values(self) -> int:
        """Rows that are compared: those with a finite number or a category."""
        if self.kind in ("numerical", "time"):
            return self.distribution.rows if self.distribution else 0
        return self.categories.rows if self.categories else 0


class DataProfile(Document):
    """The profile of a dataset, or of several merged ones."""

    schema_: Literal["airflow_mcp/profile/1"] = Field(default=PROFILE_SCHEMA, alias="schema")
    rows: Count
    columns: tuple[ColumnProfile, ...]
    sources: tuple[DatasetPin, ...] = ()
    """The data that was read, without credentials; of very many, the first."""
    more_sources: Count = 0
    """Number of further sources."""
    created_at: str = ""
    """ISO 8601, UTC."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Versions of python and of the libraries that read the data."""

    @model_validator(mode="after")
    def _name_columns_once(self) -> Self:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError("columns must have distinct names; got a name twice")
        return self


def read_profile(text: str | bytes, source: str) -> DataProfile:
    """Read a profile strictly.

    :param text: JSON text.
    :param source: where it came from, for the message.
    :raises EvidenceError: when it is not a profile, or one of an unknown version.
    """
    return parse_document(DataProfile, text, source)


def write_profile(profile: DataProfile) -> str:
    """Return a profile as compact JSON, without unset values."""
    body = profile.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return json.dumps({"schema": profile.schema_, **body}, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
