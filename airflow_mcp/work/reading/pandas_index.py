"""The index of a DataFrame that was stored: pandas keeps it beside the columns, and it is none of them."""

from __future__ import annotations

import json

import pyarrow as pa


def without_index(schema: pa.Schema) -> list[str]:
    """Return the names of the columns of a file of Parquet or Arrow, without those that pandas makes its index.

    :param schema: schema of the file; without metadata of pandas, every column counts.
    """
    try:
        index = json.loads((schema.metadata or {})[b"pandas"])["index_columns"]
        stored = {name for name in index if isinstance(name, str)}  # a range is stored without a column
    except (KeyError, TypeError, ValueError):
        return list(schema.names)
    return [name for name in schema.names if name not in stored]
