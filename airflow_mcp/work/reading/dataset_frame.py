"""Pinned datasets, read whole into a pandas DataFrame."""

from __future__ import annotations

import contextlib
import gzip
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from airflow_mcp.core.data.dataset import data_file_name, public_uri
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.reading.csv_and_jsonl import csv_header, json_objects
from airflow_mcp.work.reading.file_formats import FORMATS, ending_of, is_gzip
from airflow_mcp.work.reading.pinned_file import verified_file

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)


def load_dataset(pin: DatasetPin, text_columns: Collection[str] = ()) -> tuple[pd.DataFrame, DatasetPin]:
    """Read a pinned dataset.

    Values have the types of the file: text of JSON Lines stays text, whatever it looks like, and decimals are numbers.

    :param pin: the dataset; the ending of its name decides the format, see :mod:`.file_formats`.
    :param text_columns: columns of a CSV file to read as text, so that ``007`` stays ``007``.
    :return: the rows with an index from 0 to n-1, and the pin with its hash. An index that was stored is left out.
    :raises DatasetError: when :func:`verified_file` raises it, the ending is unknown, the content is broken, rows or
        columns are missing altogether, or a column name occurs twice.
    """
    file_format = dataset_format(pin)
    with verified_file(pin) as (path, used), readable_dataset(pin, file_format):
        frame = _read(path, file_format, pin, text_columns)
    require_rows(pin, *frame.shape)
    frame.columns = [str(name) for name in frame.columns]
    require_unique(list(frame.columns), used)
    _log.info("dataset %s: %d rows, %d columns, %s", public_uri(used.uri), *frame.shape, used.hash)
    return frame.reset_index(drop=True), used


class _Table(Protocol):
    @property
    def columns(self) -> Any: ...


def require_columns(frame: _Table, names: Collection[str], purpose: str) -> None:
    """Check that a dataset has columns.

    :param frame: the dataset, whole or batch by batch.
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


def require_rows(pin: DatasetPin, rows: int, columns: int) -> None:
    """Check that a dataset is not empty.

    :param pin: the dataset, for the message.
    :param rows: number of its rows.
    :param columns: number of its columns.
    :raises DatasetError: when it has no row or no column.
    """
    if not rows or not columns:
        raise DatasetError(
            f"dataset {public_uri(pin.uri)} must have at least one row and one column; got {rows} rows and "
            f"{columns} columns. Nothing was measured"
        )


def dataset_format(pin: DatasetPin) -> str:
    """Return the format of a dataset by the ending of its name.

    :raises DatasetError: when the ending is unknown, or the dataset is a glob.
    """
    name = data_file_name(pin.uri)
    ending = ending_of(name)
    if ending not in FORMATS:
        advice = "" if ending else "A dataset must be one file, not a folder. "
        raise DatasetError(
            f"the name of dataset {public_uri(pin.uri)} must end in one of {', '.join(FORMATS)}; got {ending!r}. "
            f"{advice}Nothing was measured"
        )
    if "://" not in pin.uri and set("*?[") & set(name) and not Path(pin.uri).exists():
        raise DatasetError(f"dataset {pin.uri} must be one file; got a glob. Nothing was measured")
    return FORMATS[ending]


def _read(path: Path, file_format: str, pin: DatasetPin, text_columns: Collection[str]) -> pd.DataFrame:
    import pyarrow.parquet as pq  # noqa: PLC0415

    if file_format == "parquet":
        return frame_of_arrow(pq.ParquetFile(path).read())
    with open_text(path, pin) as stream:
        if file_format == "jsonl":
            return frame_of_json(json_objects(stream, public_uri(pin.uri)))
        header = csv_header(stream)
        require_unique(header, pin)  # pandas would rename repeated columns
        stream.seek(0)
        return read_csv(stream, {name: str for name in text_columns if name in header})


@contextlib.contextmanager
def readable_dataset(pin: DatasetPin, file_format: str) -> Iterator[None]:
    """Turn whatever readers raise into an error that names the dataset.

    :param pin: the dataset that is read.
    :param file_format: its format.
    :raises DatasetError: in place of any other error.
    """
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:  # pandas, pyarrow and codecs each raise their own errors
        reason = str(error).splitlines()[0] if str(error) else ""
        if isinstance(error, UnicodeDecodeError):
            reason += "; convert the file to UTF-8"
        raise DatasetError(
            f"dataset {public_uri(pin.uri)} is not readable as {file_format}: {type(error).__name__}: {reason}. "
            "Nothing was measured"
        ) from None


def open_text(path: Path, pin: DatasetPin) -> IO[bytes]:
    """Open a file of CSV or JSON Lines, decompressed.

    :param path: the file.
    :param pin: the dataset, whose name says whether the file is compressed.
    """
    opener: Callable[..., Any] = gzip.open if is_gzip(data_file_name(pin.uri)) else open
    return opener(path, "rb")  # type: ignore[no-any-return]


def frame_of_arrow(table: Any) -> pd.DataFrame:
    """Return a table of Parquet as a DataFrame.

    :param table: Arrow's table, with the metadata of pandas if it has any.
    """
    # Without the option, whole numbers are rounded to doubles where a value is missing.
    frame = with_numbers(table.to_pandas(integer_object_nulls=True))
    return frame.apply(lambda column: typed(column) if column.dtype == object else column) if len(frame) else frame


def read_csv(stream: IO[bytes], types: dict[str, Any], **options: Any) -> pd.DataFrame:
    """Read CSV whole; the types of columns are decided over all rows at once.

    :param stream: the file.
    :param types: types of columns for which none is guessed.
    :param options: further options of pandas.
    :raises ValueError: when rows have more values than the header has names: pandas makes the first column an index.
    """
    import pandas as pd  # noqa: PLC0415

    frame: pd.DataFrame = pd.read_csv(stream, dtype=types, low_memory=False, **options)
    return without_csv_index(frame)


def without_csv_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Refuse CSV of which pandas makes the first column an index, because rows have more values than names."""
    import pandas as pd  # noqa: PLC0415

    if isinstance(frame.index, pd.RangeIndex):
        return frame
    raise ValueError("its rows have more values than its header has names")


def frame_of_json(rows: Iterator[dict[str, Any]], names: Collection[str] = ()) -> pd.DataFrame:
    """Return objects of JSON as a DataFrame; a name that an object does not have is a missing value.

    :param rows: the objects.
    :param names: columns that come first, whether an object has them or not.
    """
    import pandas as pd  # noqa: PLC0415

    columns: dict[str, list[Any]] = {name: [] for name in names}
    number = 0
    for number, row in enumerate(rows, start=1):
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column.extend([None] * (number - 1 - len(column)))
            column.append(value)
    for column in columns.values():
        column.extend([None] * (number - len(column)))
    return pd.DataFrame({name: typed(pd.Series(column, dtype=object)) for name, column in columns.items()})


def with_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame in which decimals are whole numbers or doubles, each where the number keeps every digit.

    :param frame: columns as pandas reads them from Parquet.
    """
    for place, name in enumerate(frame.columns):
        column = frame.iloc[:, place]
        if column.dtype == object and any(isinstance(value, Decimal) for value in column):
            frame[name] = column.map(lambda value: _number(value) if isinstance(value, Decimal) else value)
            frame[name] = frame[name].infer_objects()
    return frame


def typed(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return values in the type that they imply, unless whole numbers would be rounded to doubles.

    :param column: Python values of type object.
    """
    import pandas as pd  # noqa: PLC0415

    values = column.tolist()
    try:
        series = pd.Series(values, index=column.index, name=column.name)
    except OverflowError:  # a whole number beyond all doubles
        return column
    if series.dtype.kind == "f" and any(isinstance(value, int) and int(float(value)) != value for value in values):
        return column
    return series


def _number(value: Decimal) -> float | Decimal:
    if value.as_tuple().exponent == 0:
        return int(value)
    number = float(value)
    return number if Decimal(repr(number)) == value else value


def require_unique(names: list[str], pin: DatasetPin) -> None:
    """Check that the names of columns differ.

    :param names: names of all columns.
    :param pin: the dataset, for the message.
    :raises DatasetError: when a name occurs twice.
    """
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise DatasetError(
            f"dataset {public_uri(pin.uri)} has more than one column named {', '.join(map(repr, repeated))}; names "
            "must differ. Nothing was measured"
        )


def _shortened(names: list[str], limit: int = 30) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more
