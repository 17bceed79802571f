"""Profiles of datasets: made, stored, read back, and merged from hours to days."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeAlias

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.profile import BYTES_PER_COLUMN, DataProfile, read_profile, write_profile
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.work.drift.column_data import ColumnData, of_profile
from airflow_mcp.work.drift.column_reading import ProfileOptions, ReadData, read_data, require_read
from airflow_mcp.work.drift.distribution import COARSEST, FEW_DISTINCT, merge_curves
from airflow_mcp.work.reading.dataset_batches import open_data
from airflow_mcp.work.reading.pinned_file import verified_file
from airflow_mcp.work.run.mlflow_run import read_run_artifact
from airflow_mcp.work.run.process import cpu_count, library_versions

Side: TypeAlias = Sequence[DatasetPin] | DataProfile | ReadData
"""One side of a comparison: data, their profile, or what was read of them elsewhere."""
_SIZES = ((256, 2048), (128, 512), (96, 256), (64, 128), (48, 64), (40, 48), (32, 32), (28, 16), (24, 8))
"""Knots and categories to keep of each column; the first pair that fits the size limit is used. 24 is the least: fewer
knots could not tell a column of 20 different numbers, compared value by value, from one with more."""
_SMALLER = (
    (24, 6, 1e-3),
    *[(knots, kept, COARSEST) for knots, kept in ((20, 4), (16, 3), (12, 2), (8, 1), (4, 0), (2, 0))],
)
"""Knots, categories and rounding of the largest columns when no size fits: long numbers, long names."""
_SHORT_NAME, _SOURCES_BYTES = 100, 4096
"""Bytes: what the name of a column has beyond comes on top of the size limit; sources beyond are only counted."""
_COLUMNS_OF_BUDGET = 100
"""The size limit is per 100 columns, or part of them."""
_KNOTS_OF_WIDE_DATA = 40
"""With 200 columns or more the larger sizes cannot fit, and trying them would take minutes."""
_PROFILE_ENDING = ".json"


def profile_dataset(data: Sequence[DatasetPin], options: ProfileOptions | None = None) -> DataProfile:
    """Profile a dataset.

    :param data: files, folders, globs or fsspec URLs, read as one dataset; a given hash is verified.
    :param options: columns to read and their types; None reads all.
    :return: the profile, within its size limit.
    :raises DatasetError: when the data cannot be read, or lacks a column that the options name.
    """
    options = options or ProfileOptions()
    with open_data(data) as scan:
        read = read_data(scan, options)
    require_read(read, options.named_columns)
    return small_profile(read)


def merge_profiles(profiles: Sequence[DataProfile]) -> DataProfile:
    """Merge the profiles of parts of a dataset, such as hours, into the profile of the whole.

    The result states its own error, which includes that of merging; the order of the parts hardly matters.

    :param profiles: at least one; a column that a part lacks counts as missing in all rows of that part.
    :raises InvalidArgumentError: when there is none.
    """
    if not profiles:
        raise InvalidArgumentError("profiles must contain at least one profile; got none. Nothing was merged")
    return small_profile(merge_read([stored_columns(profile) for profile in profiles]))


def stored_columns(profile: DataProfile) -> ReadData:
    """Return the columns of a profile as if they had just been read."""
    columns = {column.name: of_profile(column, profile.rows) for column in profile.columns}
    return ReadData(profile.sources, profile.rows, columns, profile.more_sources)


def merge_read(parts: Sequence[ReadData]) -> ReadData:
    """Merge what was read of parts of a dataset.

    :param parts: at least one, in order; a column that a part lacks counts as missing in all rows of that part.
    """
    merged = ReadData(tuple(pin for part in parts for pin in part.pins))
    merged.more_pins = sum(part.more_pins for part in parts)
    merged.rows = sum(part.rows for part in parts)
    merged.present = tuple(dict.fromkeys(name for part in parts for name in part.present))
    for name in dict.fromkeys(name for part in parts for name in part.columns):
        merged.columns[name] = _merged([part.columns[name] for part in parts if name in part.columns], merged.rows)
    return merged


def _merged(parts: Sequence[ColumnData], rows: int) -> ColumnData:
    first = parts[0]
    whole = ColumnData(first.name, first.role, rows, rows - sum(part.rows for part in parts))
    for part in parts:
        whole.missing += part.missing
        whole.nan += part.nan
        whole.positive_infinite += part.positive_infinite
        whole.negative_infinite += part.negative_infinite
        whole.types |= part.types
        whole.kinds |= part.kinds
        whole.guesses |= part.guesses
        whole.families |= part.families
        whole.problem = whole.problem or part.problem
        if part.counts is not None and whole.counts is None:
            whole.counts = part.counts
        elif part.counts is not None and whole.counts is not None:
            whole.counts.merge(part.counts)
    curves = [part.curve for part in parts if part.curve is not None]
    whole.curve = merge_curves(curves) if curves else None
    # The counts of the whole decide whether its texts are categories, unless a part was declared to hold them.
    whole.was_declared = any(
        part.was_declared or (part.kind == "categorical" and part.counts is not None and part.counts.is_mostly_distinct)
        for part in parts
    )
    return whole


def small_profile(read: ReadData) -> DataProfile:
    """Return what was read as a profile, with as much detail as the size limit allows."""
    hundreds = -(-max(len(read.columns), 1) // _COLUMNS_OF_BUDGET)
    allowed = hundreds * _COLUMNS_OF_BUDGET * BYTES_PER_COLUMN
    allowed += sum(max(0, _bytes(name) - 2 - _SHORT_NAME) for name in read.columns)
    sizes = [size for size in _SIZES if len(read.columns) < 2 * _COLUMNS_OF_BUDGET or size[0] <= _KNOTS_OF_WIDE_DATA]
    for knots, categories in sizes:
        profile = _written(read, knots, categories)
        excess = len(write_profile(profile).encode()) - allowed
        if excess <= 0:
            return profile
    return _shrunk(read, profile, excess)


def _shrunk(read: ReadData, profile: DataProfile, excess: int) -> DataProfile:
    """Return a profile with less of its largest columns, so that it fits.

    Columns of few different numbers come last: with fewer knots they can no longer be compared value by value.

    :param excess: bytes that the profile is too large.
    """
    columns = list(profile.columns)
    sizes = [_bytes(column.model_dump(mode="json", exclude_defaults=True)) for column in columns]
    few = {place for place, column in enumerate(columns) if 0 < read.columns[column.name].distinct <= FEW_DISTINCT}
    for places in (set(range(len(columns))) - few, few):
        for size in _SMALLER:
            for place in sorted(places, key=lambda place: -sizes[place]):
                if excess <= 0:
                    break
                if sizes[place] > BYTES_PER_COLUMN // 2:
                    columns[place] = read.columns[columns[place].name].document(*size)
                    new = _bytes(columns[place].model_dump(mode="json", exclude_defaults=True))
                    excess, sizes[place] = excess + new - sizes[place], new
    return profile.model_copy(update={"columns": tuple(columns)})


def _bytes(value: object) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace"))


def _written(read: ReadData, knots: int, categories: int) -> DataProfile:
    sources: list[DatasetPin] = []
    left = _SOURCES_BYTES
    for pin in read.pins:
        left -= _bytes(pin.model_dump(mode="json"))
        if left < 0 and sources:
            break
        sources.append(pin)
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="columns") as pool:
        columns = pool.map(lambda column: column.document(knots, categories), read.columns.values())
        return DataProfile(
            rows=read.rows,
            columns=tuple(columns),
            sources=tuple(sources),
            more_sources=read.more_pins + len(read.pins) - len(sources),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            environment=library_versions("numpy", "pyarrow"),
        )


def stored_profile(address: str) -> DataProfile:
    """Read a stored profile.

    :param address: path, fsspec URL, or ``runs:/<run id>/<path>`` for an artifact of an MLflow run.
    :raises DatasetError: when the file cannot be read.
    :raises MlflowError: when the run has no such artifact, or MLflow does not answer.
    :raises EvidenceError: when the file is not a profile.
    """
    if address.startswith("runs:/"):
        run_id, _, artifact = address.removeprefix("runs:/").partition("/")
        return read_profile(read_run_artifact(run_id, artifact), address)
    with verified_file(DatasetPin(uri=address)) as (path, used):
        return read_profile(path.read_bytes(), used.uri)


def read_side(address: str) -> Side:
    """Read one side of a comparison that a command line names.

    :param address: a profile if it ends in ``.json``, else data; see :func:`stored_profile` for the errors of profiles.
    """
    return stored_profile(address) if address.endswith(_PROFILE_ENDING) else [DatasetPin(uri=address)]
