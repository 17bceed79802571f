"""Pinned datasets, read whole into a pandas DataFrame."""

from __future__ import annotations

import csv
import gzip
import logging
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mcp.core.data.dataset import data_file_name, public_uri
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.reading.file_formats import FORMATS, ending_of, is_gzip
from airflow_mcp.work.reading.pinned_file import verified_file

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)


def load_dataset(pin: DatasetPin, text_columns: Collection[str] = ()) -> tuple[pd.DataFrame, DatasetPin]:
    """Read a pinned dataset.

    :param pin: the dataset; the ending of its name decides the format, see :mod:`.file_formats`.
    :param text_columns: columns of a CSV file to read as text, so that ``007`` stays ``007``.
    :return: the rows with an index from 0 to n-1, and the pin with its hash.
    :raises DatasetError: when :func:`verified_file` raises it, the ending is unknown, the content is broken, rows or
        columns are missing altogether, or a column name occurs twice.
    """
    file_format = _format_of(pin)
    with verified_file(pin) as (path, used):
        frame = _read(path, file_format, used, text_columns)
    if frame.shape[1] == 0 or frame.shape[0] == 0:
        raise DatasetError(
            f"dataset {public_uri(pin.uri)} must have at least one row and one column; got {frame.shape[0]} rows and "
            f"{frame.shape[1]} columns. Nothing was measured"
        )
    frame.columns = [str(name) for name in frame.columns]
    _require_unique(list(frame.columns), used)
    _log.info("dataset %s: %d rows, %d columns, %s", public_uri(used.uri), *frame.shape, used.hash)
    return frame.reset_index(drop=True), used


def require_columns(frame: pd.DataFrame, names: Collection[str], purpose: str) -> None:
    """Check that a dataset has columns.

    :param frame: the dataset.
    :param names: required columns.
    :param purpose: their purpose, for the message.
    :raises DatasetError: when some are absent; names them, and the columns that are present.
    """
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise DatasetError(
            f"the dataset has no column {', '.join(map(repr, absent))}, needed as {purpose}; it has "
            f"{_shortened(list(frame.columns))}. Nothing was measured"
        )


def _format_of(pin: DatasetPin) -> str:
    ending = ending_of(data_file_name(pin.uri))
    if ending not in FORMATS:
        raise DatasetError(
            f"the name of dataset {public_uri(pin.uri)} must end in one of {', '.join(FORMATS)}; got {ending!r}. "
            "Nothing was measured"
        )
    return FORMATS[ending]


def _read(path: Path, file_format: str, pin: DatasetPin, text_columns: Collection[str]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    try:
        if file_format == "parquet":
            return pd.read_parquet(path)
        compression: Any = "gzip" if is_gzip(data_file_name(pin.uri)) else None
        if file_format == "csv":
            header = _csv_header(path, gzip.open if compression else open)
            _require_unique(header, pin)
            types: dict[Any, Any] = {name: str for name in text_columns if name in header}
            return pd.read_csv(path, dtype=types, compression=compression)
        return pd.read_json(path, lines=True, compression=compression)
    except DatasetError:
        raise
    except Exception as error:  # pandas, pyarrow and codecs each raise their own errors
        reason = str(error).splitlines()[0] if str(error) else ""
        raise DatasetError(
            f"dataset {public_uri(pin.uri)} is not readable as {file_format}: {type(error).__name__}: {reason}. "
            "Nothing was measured"
        ) from None


def _csv_header(path: Path, opener: Callable[..., Any]) -> list[str]:
    """Read the first row of a CSV file: pandas would silently rename repeated columns."""
    with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
        return next(csv.reader(stream), [])


def _require_unique(names: list[str], pin: DatasetPin) -> None:
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise DatasetError(
            f"dataset {public_uri(pin.uri)} has more than one column named {', '.join(map(repr, repeated))}; names "
            "must differ. Nothing was measured"
        )


def _shortened(names: list[str], limit: int = 30) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
