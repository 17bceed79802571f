"""What a profile holds: the distribution of every column of a dataset, small enough to keep with a model version.

A profile is JSON, at most :data:`BYTES_PER_COLUMN` per column, and says how far it may be from the data it was made of.
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
"""What a written profile may take per column on average: 64 KiB for 100 columns."""

ColumnType = Literal["numerical", "categorical"]
ColumnKind = Literal["numerical", "categorical", "text", "time", "other", "empty"]
"""``text`` has too many different values to be categories; ``other`` is nested or binary; ``empty`` has no value."""
ColumnRole = Literal["feature", "prediction", "target", "quality"]
"""What a column is to the model; ``quality`` says row by row how well it predicted."""
Count = Annotated[int, Field(ge=0)]


class Distribution(Document):
    """Cumulative distribution of the finite numbers of a column, from its least value to its greatest.

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
    """Of the population."""
    rank_error: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of rows below any value is wrong by at most this much."""
    distance_error: Annotated[float, Field(ge=0)] = 0.0
    """Wasserstein distance to the true distribution, at most, in units of the column."""
    distinct: Count | None = None
    """Different values, where they are more than are kept and were counted."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        values = self.values
        if not values or any(low >= high for low, high in itertools.pairwise(values)):
            raise ValueError("values must ascend, and there must be one")
        if len(self.at) != len(values) or len(self.between) not in (0, len(values) - 1):
            raise ValueError(f"{len(values)} values need as many counts at them, and one less between them")
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
    """Rows of all others."""
    error: Count = 0
    """A category has at most this many rows above its count, and never fewer; one that is not kept counts as 0."""
    distinct: Count | None = None
    """How many categories there are; None when there are too many to have counted."""

    @property
    def rows(self) -> int:
        """Number of values."""
        return sum(self.counts.values()) + self.other

    @property
    def is_exact(self) -> bool:
        """Whether every category and its count are kept."""
        return not self.other and not self.error


class ColumnProfile(Document):
    """One column."""

    name: str
    kind: ColumnKind
    type: str
    """Type as it was read, for example ``int64``; several joined by ``|`` when the values are mixed."""
    role: ColumnRole = "feature"
    missing: Count = 0
    """Rows without a value (null)."""
    nan: Count = 0
    """Rows with a number that is none; they count as missing in every comparison."""
    positive_infinite: Count = 0
    negative_infinite: Count = 0
    distribution: Distribution | None = None
    """Of numbers, and of times in seconds since 1970; None without a finite one."""
    categories: Categories | None = None

    @property
    def values(self) -> int:
        """Rows that a comparison sees: with a finite number or a category."""
        if self.kind in ("numerical", "time"):
            return self.distribution.rows if self.distribution else 0
        return self.categories.rows if self.categories else 0


class DataProfile(Document):
    """Profile of a dataset, or of several merged."""

    schema_: Literal["airflow_mcp/profile/1"] = Field(default=PROFILE_SCHEMA, alias="schema")
    rows: Count
    columns: tuple[ColumnProfile, ...]
    sources: tuple[DatasetPin, ...] = ()
    """The data, as used; without credentials."""
    created_at: str = ""
    """ISO 8601, UTC."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Versions of python and of the libraries that read the data."""

    @model_validator(mode="after")
    def _name_columns_once(self) -> Self:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError("columns must have different names")
        return self


def read_profile(text: str | bytes, source: str) -> DataProfile:
    """Read a profile strictly.

    :param text: JSON text.
    :param source: where it came from, for the message.
    :raises EvidenceError: when it is no profile, or one of a version that is not known.
    """
    return parse_document(DataProfile, text, source)


def write_profile(profile: DataProfile) -> str:
    """Write a profile as compact JSON; values that nobody set are left out."""
    body = profile.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return json.dumps({"schema": profile.schema_, **body}, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
