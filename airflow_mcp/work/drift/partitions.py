"""Reads a dataset in parts on a cluster of Spark or Dask; only what a profile is made of comes back, never rows."""

from __future__ import annotations

import contextlib
import itertools
import logging
import pickle
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from airflow_mcp.core.data.logged_requests import LoggedRequests
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.policy import ComparisonPolicy, require_no_rows
from airflow_mcp.core.drift.profile import DataProfile
from airflow_mcp.core.engine import Engine
from airflow_mcp.exceptions import DatasetError, ModelControlPlaneError
from airflow_mcp.work.drift.column_reading import (
    ProfileOptions,
    ReadData,
    as_asked,
    column_groups,
    one_pass,
    require_read,
    settled,
)
from airflow_mcp.work.drift.profiles import Side, merge_read, profile_dataset, small_profile
from airflow_mcp.work.engines.cluster import Cluster, connected
from airflow_mcp.work.reading.batch_readers import DataFile, row_group_count
from airflow_mcp.work.reading.dataset_batches import COLUMNS_AT_ONCE, FileScan, is_read_as_copy, open_data

_log = logging.getLogger(__name__)
_LEAST, _MOST = 64, 1024
"""Parts of a dataset: Parquet files are divided by row groups up to the first number, and files are read together from
the second on. Fixed, and not by the size of the cluster, so that the same data always give the same profile."""


@dataclass(frozen=True)
class Part:
    """A part of a dataset, which one worker reads."""

    files: tuple[DataFile, ...] = ()
    pins: tuple[DatasetPin, ...] = ()
    """Data that begins with this part, as it is recorded."""
    whole: DatasetPin | None = None
    """Data that the worker fetches and verifies as a whole, instead of files."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[FileScan]:
        """Open the files."""
        if self.whole is None:
            yield FileScan(self.files, self.pins)
        else:
            with open_data([self.whole]) as scan:
                yield scan


@dataclass(frozen=True)
class _Asked:
    """What one pass reads of every part."""

    options: ProfileOptions
    names: Collection[str] | None = None
    texts: Collection[str] = field(default=())

    def groups(self, scan: FileScan) -> Iterator[Collection[str] | None]:
        """Divide the columns into passes over a part, as one process does."""
        if self.names is None or not scan.is_columnar:
            yield from column_groups([scan], self.options, COLUMNS_AT_ONCE) if self.names is None else (self.names,)
            return
        names = list(self.names)
        yield from (names[start : start + COLUMNS_AT_ONCE] for start in range(0, len(names), COLUMNS_AT_ONCE))


def profile_on_engine(
    data: Sequence[DatasetPin], options: ProfileOptions, engine: Engine, address: str = ""
) -> DataProfile:
    """Profile a dataset on an engine.

    :param data: files, folders, globs or fsspec URLs, read as one dataset.
    :param options: columns to read and their types.
    :param engine: ``local``, ``spark`` or ``dask``.
    :param address: address of the cluster; empty takes the environment variable ``AIRFLOW_MCP_ENGINE_ADDRESS``.
    :raises DatasetError: when the data cannot be read, or lacks a column that the options name.
    :raises EngineError: when the cluster does not answer, or fails.
    """
    if engine == "local":
        return profile_dataset(data, options)
    with connected(engine, address) as cluster:
        read = read_on_cluster(cluster, data, options)
    require_read(read, options.named_columns)
    return small_profile(read)


def sides_on_engine(
    sides: tuple[Side, Side], policy: ComparisonPolicy, engine: Engine, address: str = ""
) -> tuple[Side, Side]:
    """Return the sides of a comparison, with their data read on an engine; profiles stay as they are.

    :param sides: reference and current data.
    :param policy: what is compared.
    :param engine: ``local`` leaves the data to the comparison.
    :param address: as for :func:`profile_on_engine`.
    """
    if engine == "local" or all(isinstance(side, DataProfile | ReadData) for side in sides):
        return sides
    require_no_rows(policy, engine)
    options = ProfileOptions.of_policy(policy)
    with connected(engine, address) as cluster:
        first, second = (
            side if isinstance(side, DataProfile | ReadData) else read_on_cluster(cluster, side, options)
            for side in sides
        )
        return first, second


def read_on_cluster(cluster: Cluster, data: Sequence[DatasetPin], options: ProfileOptions) -> ReadData:
    """Read a dataset in parts on a cluster.

    :param cluster: the connected cluster; its workers must reach the data at the same addresses.
    :param data: files, folders, globs or fsspec URLs, read as one dataset. Data with a hash is verified by the worker
        that reads it, which reads all of it.
    :param options: columns to read and their types.
    :return: what one process would have read, with the error of merging added to that of reading.
    :raises DatasetError: when a worker cannot read the data.
    :raises EngineError: when the cluster fails.
    """
    parts = parts_of(data)
    _log.info("data: %d parts for %s", len(parts), cluster.shown)

    def read_pass(options: ProfileOptions, names: Collection[str] | None, texts: Collection[str]) -> ReadData:
        work = partial(read_part, _Asked(options, names, texts))
        answer: ReadData | ModelControlPlaneError = pickle.loads(cluster.run(work, parts, merge_parts))  # noqa: S301
        if isinstance(answer, ModelControlPlaneError):
            raise type(answer)(
                f"{answer}. A worker of {cluster.shown} answered this; all workers must reach the data at this address"
            )
        return answer

    return settled(read_pass, options)


def parts_of(data: Sequence[DatasetPin]) -> list[Part]:
    """Divide a dataset into parts that several workers can read.

    :raises DatasetError: when there is no file, or the rows of a Parquet file cannot be counted.
    """
    if not data:
        raise DatasetError("data must name at least one file, folder, glob or URL; got none. Nothing was read")
    found: list[Part] = []
    for given in data:
        pin = given.pin if isinstance(given, LoggedRequests) else given
        if is_read_as_copy(pin):
            found.append(Part(whole=given))
            continue
        with open_data([given]) as scan:
            pieces = _pieces(scan.files)
            found += [Part(files, scan.pins if number == 0 else ()) for number, files in enumerate(pieces)]
    return found


def _pieces(files: Sequence[DataFile]) -> list[tuple[DataFile, ...]]:
    """Divide large Parquet files by row groups, and put very many files together."""
    if len(files) >= _LEAST:
        size = -(-len(files) // _MOST)
        return [tuple(files[start : start + size]) for start in range(0, len(files), size)]
    pieces: list[tuple[DataFile, ...]] = []
    for file in files:
        groups = row_group_count(file)
        count = max(1, min(groups, _LEAST // len(files)))
        edges = [groups * number // count for number in range(count + 1)]
        if count == 1:
            pieces.append((file,))
        else:
            pieces += [(replace(file, row_groups=edge),) for edge in itertools.pairwise(edges)]
    return pieces


def read_part(asked: _Asked, part: Part) -> bytes:
    """Read a part on a worker; a refusal is an answer, so that the cluster does not try again what cannot succeed."""
    try:
        with part.opened() as opened:
            scan = as_asked(opened, asked.options).reading(texts=asked.texts)
            read = ReadData(scan.pins, present=scan.columns)
            for names in asked.groups(scan):
                read.add(one_pass(scan, read.present, asked.options, names, is_exact=False))
    except ModelControlPlaneError as refusal:
        return pickle.dumps(refusal)
    return pickle.dumps(read)


def merge_parts(answers: Sequence[bytes]) -> bytes:
    """Merge answers of :func:`read_part`, or of this function, in the order of the parts; one refusal is enough."""
    parts = [pickle.loads(answer) for answer in answers]  # noqa: S301  (from the cluster that runs our code)
    refusal = next((part for part in parts if isinstance(part, ModelControlPlaneError)), None)
    if refusal is not None:
        return pickle.dumps(refusal)
    return answers[0] if len(parts) == 1 else pickle.dumps(merge_read(parts))
