"""A few rows of a large dataset that have the types of its columns, and a missing value where a column has any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


class ColumnSample:
    """The first batch of a dataset, and of the others the rows that show something new about a column."""

    def __init__(self) -> None:
        self._parts: list[pd.DataFrame] = []
        self._has_gap = self._has_value = np.zeros(0, dtype=bool)

    def add(self, frame: pd.DataFrame) -> None:
        """Take what a batch adds: its first row, the first missing value and the first value of a column.

        :param frame: batch with the same columns as the others.
        """
        gaps = frame.isna().to_numpy()
        has_gap, has_value = gaps.any(axis=0), (~gaps).any(axis=0)
        if self._parts:
            first_gaps = gaps[:, has_gap & ~self._has_gap].argmax(axis=0)
            first_values = (~gaps[:, has_value & ~self._has_value]).argmax(axis=0)
            self._parts.append(frame.iloc[np.unique([0, *first_gaps, *first_values])])
            self._has_gap, self._has_value = self._has_gap | has_gap, self._has_value | has_value
        else:
            self._parts, self._has_gap, self._has_value = [frame], has_gap, has_value

    def joined(self) -> pd.DataFrame:
        """Return all rows that were taken."""
        import pandas as pd  # noqa: PLC0415

        if len(self._parts) == 1:
            return self._parts[0]
        # Column by column: DataFrames are joined without regard to the type of a part whose values are all missing.
        return pd.DataFrame({name: pd.concat([part[name] for part in self._parts]) for name in self._parts[0].columns})
