"""Data in parts give what one process gives; here the parts are read one after the other, without a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from airflow_mcp.core.data.logged_requests import LoggedRequests
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.identity import content_hash
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError
from airflow_mcp.work.drift.column_reading import ProfileOptions, ReadData, read_data
from airflow_mcp.work.drift.dataset_comparison import compare_datasets
from airflow_mcp.work.drift.distribution import differences
from airflow_mcp.work.drift.partitions import parts_of, profile_on_engine, read_on_cluster
from airflow_mcp.work.engines.cluster import FAN_IN, Merge, TaskT
from airflow_mcp.work.reading.dataset_batches import open_data
from tests.support.engines import write_awkward_parts


class InTurn:
    """A cluster that is this process."""

    shown = "this process"

    def __init__(self) -> None:
        self.tasks: list[int] = []
        """Number of parts of each pass."""

    def probe(self, versions: Callable[[], dict[str, str]]) -> dict[str, str]:
        return versions()

    def run(self, work: Callable[[TaskT], bytes], tasks: Sequence[TaskT], merge: Merge) -> bytes:
        self.tasks.append(len(tasks))
        answers = [work(task) for task in tasks]
        while len(answers) > 1:
            answers = [merge(answers[start : start + FAN_IN]) for start in range(0, len(answers), FAN_IN)]
        return answers[0]


def pins(*paths: object) -> list[DatasetPin]:
    return [DatasetPin(uri=str(path)) for path in paths]


def by_one_process(data: Sequence[DatasetPin], options: ProfileOptions) -> ReadData:
    with open_data(data) as scan:
        return read_data(scan, options)


def require_equal(parts: ReadData, whole: ReadData) -> None:
    assert (parts.rows, parts.pins, list(parts.columns)) == (whole.rows, whole.pins, list(whole.columns))
    for name, column in whole.columns.items():
        found = parts.columns[name]
        for field in ("kind", "types", "role", "rows", "missing", "nan", "infinite", "values", "is_integer"):
            assert getattr(found, field) == getattr(column, field), (name, field)
        assert (found.counts is None, found.curve is None) == (column.counts is None, column.curve is None), name
        if found.counts is not None and column.counts is not None:
            assert found.counts.counts == column.counts.counts, name
        if found.curve is not None and column.curve is not None:
            assert found.curve.moments.mean == pytest.approx(column.curve.moments.mean, rel=1e-12), name
            assert found.curve.moments.deviation == pytest.approx(column.curve.moments.deviation, rel=1e-9), name
            rank, distance = differences(found.curve, column.curve)
            assert rank <= found.curve.rank_error + column.curve.rank_error + 1e-12, name
            assert distance <= found.curve.distance_error + column.curve.distance_error + 1e-9, name


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        (ProfileOptions(), 2),
        (ProfileOptions(columns=("amount", "code"), categorical_columns=("late",)), 1),
        (ProfileOptions(ignored_columns=("kind",), prediction="amount", target="late"), 2),
    ],
    ids=["all", "chosen", "derived"],
)
def test_awkward_parts_give_what_one_process_gives(tmp_path: Path, options: ProfileOptions, passes: int) -> None:
    write_awkward_parts(tmp_path)
    cluster = InTurn()
    require_equal(read_on_cluster(cluster, pins(tmp_path), options), by_one_process(pins(tmp_path), options))
    assert cluster.tasks == passes * [15]  # 13 row groups and two files; columns of doubtful types are read once more


def test_a_verified_file_and_a_folder_are_read_as_one_dataset(tmp_path: Path) -> None:
    write_awkward_parts(tmp_path)
    path = tmp_path / "1-groups.parquet"
    pinned = DatasetPin(uri=str(path), version="v1", hash=content_hash(path.read_bytes()))
    data = [pinned, *pins(tmp_path / "3-lacks-code.parquet")]
    found = read_on_cluster(InTurn(), data, ProfileOptions())
    require_equal(found, by_one_process(data, ProfileOptions()))
    wrong = pinned.model_copy(update={"hash": f"sha256:{'0' * 64}"})
    with pytest.raises(DatasetError, match=r"is not the one that was pinned.* A worker of this process answered this"):
        read_on_cluster(InTurn(), [wrong], ProfileOptions())


def test_only_rows_of_the_wanted_roles_of_a_prediction_log_are_read(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("role,x\n" + "champion,1\ncanary,2\n" * 50)
    log = LoggedRequests(uri=str(tmp_path), column="role", roles=("champion",))
    found = read_on_cluster(InTurn(), [log], ProfileOptions())
    require_equal(found, by_one_process([log], ProfileOptions()))
    assert found.rows == 50


def test_the_report_is_the_same_as_that_of_one_process(tmp_path: Path) -> None:
    write_awkward_parts(tmp_path)
    policy = ComparisonPolicy(min_rows=10)
    sides = pins(tmp_path / "1-groups.parquet"), pins(tmp_path)
    one = compare_datasets(*sides, policy).result
    options = ProfileOptions.of_policy(policy)
    read = [read_on_cluster(InTurn(), side, options) for side in sides]
    many = compare_datasets(read[0], read[1], policy).result
    changing = {"created_at", "columns"}
    assert many.model_dump(exclude=changing) == one.model_dump(exclude=changing)
    for found, expected in zip(many.columns, one.columns, strict=True):
        assert (found.column, found.method, found.drifted) == (expected.column, expected.method, expected.drifted)
        if expected.score is not None:
            assert found.score == pytest.approx(expected.score, abs=found.error + expected.error + 1e-12)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_awkward_parts(tmp_path)
    (tmp_path / "7-broken.csv").write_bytes(b"amount,kind\n1,a,too,many\n")
    with pytest.raises(DatasetError, match=r"7-broken\.csv"):
        read_on_cluster(InTurn(), pins(tmp_path), ProfileOptions())


def test_very_many_files_are_read_together_and_each_once(tmp_path: Path) -> None:
    for number in range(2100):
        (tmp_path / f"{number:04}.csv").write_text("x\n1\n")
    parts = parts_of(pins(tmp_path))
    assert len(parts) == 700
    assert [file.path for part in parts for file in part.files] == sorted(map(str, tmp_path.iterdir()))


def test_rows_and_an_address_are_asked_for_before_a_cluster_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_MCP_ENGINE_ADDRESS", raising=False)
    for engine in ("spark", "dask"):
        with pytest.raises(InvalidArgumentError, match="needs the address of a cluster"):
            profile_on_engine(pins(tmp_path), ProfileOptions(), engine)  # type: ignore[arg-type]
