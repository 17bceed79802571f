"""Segments of the prediction log become Parquet that replays and drift checks read."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from airflow_mcp.core.data.logged_requests import LoggedRequests
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.drift.summary import DriftRequest, DriftSide
from airflow_mcp.core.evaluation.evidence import ModelUnderTest
from airflow_mcp.core.evaluation.replay import ReplayRequest
from airflow_mcp.core.serving.prediction_log import (
    ENV_LOG_URI,
    LOG_COLUMNS,
    Answered,
    Event,
    LogForm,
    LogRule,
    segment_name,
)
from airflow_mcp.exceptions import DatasetError, DataUnreachableError, InvalidArgumentError
from airflow_mcp.operators.drift import drift_side
from airflow_mcp.work.drift.dataset_comparison import compare_datasets
from airflow_mcp.work.drift.row_sampling import sample_table
from airflow_mcp.work.reading.dataset_batches import open_data
from airflow_mcp.work.reading.request_log import RequestLog
from airflow_mcp.work.steps import ship_log as module
from airflow_mcp.work.steps.drift import _data, _without_log_columns
from airflow_mcp.work.steps.replay import _with_log_columns
from airflow_mcp.work.steps.ship_log import ship_log
from tests.support.prediction_log import Logged, write_events, write_log

AT = 1_795_975_200.0  # 2026-11-29T18:00:00 UTC
COLUMNS = [("amount", "double"), ("cards", "long"), ("country", "string"), ("new", "boolean")]


def segment(folder: Path, number: int, rows: int = 10, *, at: float = AT, model: str = "fraud") -> Path:
    """Write a closed segment with one request per row, as the server does."""
    form = LogForm(COLUMNS, ["long"], LogRule())
    draw = np.random.default_rng(number)
    lines = [json.dumps(form.header(model, "8"))]
    for row in range(rows):
        values = (float(draw.normal()), int(draw.integers(9)), "DE" if row % 3 else "AT", bool(row % 2))
        answered = Answered(f"r{number}-{row}", at + row, "8", "champion", [values], [int(row % 2)], 0.002)
        lines += [json.dumps(record) for record in form.records(answered)]
    path = folder / segment_name(at, number)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


def ship(spool: Path, store: str) -> int:
    return ship_log(spool, "pod-a", {ENV_LOG_URI: store}, once=True)


def parquet_files(store: Path) -> list[Path]:
    return sorted(store.rglob("*.parquet"))


class TestAStoredSegment:
    def test_has_the_types_of_the_signature(self, spool: Path, tmp_path: Path) -> None:
        segment(spool, 1)
        ship(spool, str(tmp_path / "store"))
        (path,) = parquet_files(tmp_path / "store")
        assert str(path.relative_to(tmp_path / "store")) == (
            "model=fraud/date=2026-11-29/hour=18/1795975200000-pod-a-1.parquet"
        )
        schema = {field.name: str(field.type) for field in pq.read_schema(path)}
        assert schema == {
            "amount": "double",
            "cards": "int64",
            "country": "string",
            "new": "bool",
            "request_id": "string",
            "row": "int32",
            "requested_at": "timestamp[us, tz=UTC]",
            "model_version": "string",
            "role": "string",
            "prediction": "int64",
            "probability": "double",
            "latency_ms": "double",
        }
        assert list(spool.iterdir()) == []

    def test_of_events_is_beside_the_rows_and_seen_by_no_reader_of_rows(self, tmp_path: Path) -> None:
        store = write_log(tmp_path, [Logged("r1", AT, 1)])
        write_events(tmp_path, [Event("r2", AT, "", "", 503, "not_ready", 0.002)])
        (path,) = (tmp_path / "store" / "_events").rglob("*.parquet")
        assert {field.name: str(field.type) for field in pq.read_schema(path)} == {
            "request_id": "string",
            "requested_at": "timestamp[us, tz=UTC]",
            "model_version": "string",
            "role": "string",
            "status": "int32",
            "error": "string",
            "latency_ms": "double",
        }
        for address in (store, f"{store}/model=fraud", f"{store}/**/*.parquet", f"{store}/*/*/*/*.parquet"):
            assert RequestLog(address).files == 1
            with open_data([DatasetPin(uri=address)]) as scan:
                assert len(scan.files) == 1
        assert RequestLog(f"{store}/_events/**/*.parquet").files == 1  # for whoever asks for them

    def test_is_one_object_however_often_it_is_stored(self, spool: Path, tmp_path: Path) -> None:
        text = segment(spool, 1).read_text()
        for _ in range(2):
            (spool / segment_name(AT, 1)).write_text(text)
            ship(spool, str(tmp_path / "store"))
        assert [path.name for path in (tmp_path / "store").rglob("*") if path.is_file()] == [
            "1795975200000-pod-a-1.parquet"
        ]

    def test_leaves_out_the_torn_last_line_of_a_server_that_was_killed(self, spool: Path, tmp_path: Path) -> None:
        path = segment(spool, 1, rows=5)
        path.write_text(path.read_text() + '{"amount": 1.5, "ca')
        ship(spool, str(tmp_path / "store"))
        assert pq.read_metadata(parquet_files(tmp_path / "store")[0]).num_rows == 5

    @pytest.mark.parametrize("text", ["", "\n", "{", '{"a": 1}\n', "[]\n"])
    def test_without_rows_is_deleted(self, spool: Path, tmp_path: Path, text: str) -> None:
        (spool / segment_name(AT, 1)).write_text(text)
        assert ship(spool, str(tmp_path / "store")) == 0
        assert list(spool.iterdir()) == []

    def test_that_another_server_is_storing_is_left_to_it(self, spool: Path, tmp_path: Path) -> None:
        taken = segment(spool, 1)
        segment(spool, 2)
        with taken.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            ship(spool, str(tmp_path / "store"))
        assert list(spool.iterdir()) == [taken]
        assert [path.name for path in parquet_files(tmp_path / "store")] == ["1795975200000-pod-a-2.parquet"]

    def test_has_the_same_name_whichever_server_stores_it(self, spool: Path, tmp_path: Path) -> None:
        path = segment(spool, 1)
        header, _, rows = path.read_text().partition("\n")
        text = json.dumps({**json.loads(header), "pod": "pod-b"}) + "\n" + rows
        for pod in ("pod-a", "pod-c"):
            path.write_text(text)
            ship_log(spool, pod, {ENV_LOG_URI: str(tmp_path / "store")}, once=True)
        assert [path.name for path in parquet_files(tmp_path / "store")] == ["1795975200000-pod-b-1.parquet"]

    def test_that_is_still_open_is_left_alone(self, spool: Path, tmp_path: Path) -> None:
        (spool / "_open-1.jsonl").write_text("{}\n")
        ship(spool, str(tmp_path / "store"))
        assert [path.name for path in spool.iterdir()] == ["_open-1.jsonl"]

    def test_goes_to_an_object_store(self, spool: Path) -> None:
        segment(spool, 1)
        ship(spool, "memory://predictions/log")
        found = fsspec.filesystem("memory").find("/predictions/log")
        assert found == ["/predictions/log/model=fraud/date=2026-11-29/hour=18/1795975200000-pod-a-1.parquet"]

    @pytest.mark.parametrize(
        ("answers", "kind"),
        [
            *(([True], "bool"), ([0, 1, None], "int64"), ([1, 0.5], "double"), ([2**70, 1], "double")),
            *((["a"], "string"), ([[1, 2]], "string")),
        ],
    )
    def test_has_predictions_of_a_type_that_fits_when_the_signature_names_none(
        self, spool: Path, tmp_path: Path, answers: list[Any], kind: str
    ) -> None:
        form = LogForm(COLUMNS[:1], [], LogRule())
        rows = [(1.0,)] * len(answers)
        records = form.records(Answered("r", AT, "8", "canary", rows, answers, 0.1))
        lines = [json.dumps(line) for line in (form.header("fraud", "8"), *records)]
        (spool / segment_name(AT, 1)).write_text("\n".join(lines))
        ship(spool, str(tmp_path / "store"))
        schema = pq.read_schema(parquet_files(tmp_path / "store")[0])
        assert str(schema.field("prediction").type) == kind


class TestAStoreThatIsAway:
    def test_keeps_the_segments(self, spool: Path, tmp_path: Path) -> None:
        segment(spool, 1)
        segment(spool, 2)
        (tmp_path / "store").write_text("a file where the folder should be")
        with pytest.raises(DataUnreachableError, match="2 segments of the prediction log could not be stored"):
            ship(spool, str(tmp_path / "store"))
        assert len(list(spool.iterdir())) == 2
        (tmp_path / "store").unlink()
        ship(spool, str(tmp_path / "store"))
        assert len(parquet_files(tmp_path / "store")) == 2

    def test_that_no_library_knows_is_refused(self, spool: Path) -> None:
        with pytest.raises(InvalidArgumentError, match="must be one that fsspec can use; got what://store"):
            ship(spool, "what://me:secret@store")

    def test_a_segment_that_made_room_meanwhile_is_passed_over(
        self, spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = segment(spool, 1)
        segment(spool, 2)
        read = module._read

        def removed_meanwhile(path: Path) -> Any:
            if path == gone:
                path.unlink()
            return read(path)

        monkeypatch.setattr(module, "_read", removed_meanwhile)
        assert ship(spool, str(tmp_path / "store")) == 0
        assert len(parquet_files(tmp_path / "store")) == 1


class TestTheProjectsOwnReaders:
    @pytest.fixture
    def store(self, spool: Path, tmp_path: Path) -> Path:
        for number in range(4):
            segment(spool, number, 500, at=AT + number * 1800)  # two hours
        store = tmp_path / "store"
        ship(spool, str(store))
        (store / "model=fraud" / "_open-9.jsonl").write_text("{")
        return store

    def test_a_replay_takes_the_newest_rows_across_files(self, store: Path) -> None:
        log = RequestLog(str(store), "requested_at")
        assert log.files == 4
        selection = log.select(700)
        assert (selection.available, selection.taken, selection.undated) == (2000, 700, 0)
        rows = pd.concat([chunk.frame for chunk in log.read(selection)])
        assert len(rows) == 700
        assert set(rows["request_id"].str.partition("-")[0]) == {"r2", "r3"}
        assert {"amount", "cards", "country", "new"} <= set(rows.columns)

    def test_a_drift_check_compares_the_inputs(self, store: Path, tmp_path: Path) -> None:
        draw = np.random.default_rng(0)
        reference = tmp_path / "train.parquet"
        pd.DataFrame(
            {
                "amount": draw.normal(size=2000),
                "cards": draw.integers(9, size=2000),
                "country": np.where(np.arange(2000) % 3, "DE", "AT"),
                "new": np.arange(2000) % 2 == 1,
            }
        ).to_parquet(reference)
        policy = ComparisonPolicy(ignored_columns=LOG_COLUMNS)
        found = compare_datasets([DatasetPin(uri=str(reference))], [DatasetPin(uri=str(store))], policy).result
        assert (found.verdict, found.current_rows) == ("not_drifted", 2000)
        assert [column.column for column in found.columns] == ["amount", "cards", "country", "new"]
        assert found.findings == ()


class TestTheRolesInALog:
    """A canary answers some requests, and is asked in the shadow of the champion; another version stands by."""

    ANSWERS = (("8", "champion", 30), ("9", "shadow", 30), ("9", "canary", 7), ("7", "standby", 4), ("9", "forced", 2))

    @pytest.fixture
    def store(self, spool: Path, tmp_path: Path) -> str:
        for number, (version, role, rows) in enumerate(self.ANSWERS):
            form = LogForm(COLUMNS, ["long"], LogRule())
            lines = [form.header("fraud", version)]
            for row in range(rows):
                values = (float(number), row, "DE", True)
                lines += form.records(Answered(f"{number}-{row}", AT + row, version, role, [values], [1], 0.002))
            (spool / segment_name(AT, number)).write_text("\n".join(map(json.dumps, lines)))
        ship(spool, str(tmp_path / "store"))
        return str(tmp_path / "store")

    @pytest.mark.parametrize(
        ("asked", "rows"),
        [
            ({}, {0.0: 30, 3.0: 4}),
            ({"roles": ["canary", "champion"]}, {0.0: 30, 2.0: 7}),
            ({"roles": ["shadow"]}, {1.0: 30}),
        ],
    )
    def test_are_read_by_replays_and_drift_checks_as_asked(
        self, store: str, tmp_path: Path, asked: dict[str, Any], rows: dict[float, int]
    ) -> None:
        model = ModelUnderTest(model_uri="models:/x")
        values = {"identity": "i", "run_id": "r", "candidate": model, "champion": model, "model_type": "classifier"}
        request, column = _with_log_columns(ReplayRequest(source=store, log="serving", **values, **asked))
        log = RequestLog(store, request.timestamp_column, column, request.roles)
        selection = log.select(1000)
        amounts = [amount for chunk in log.read(selection) for amount in chunk.frame["amount"]]
        assert (selection.available, selection.taken) == (len(amounts), len(amounts)) == (sum(rows.values()),) * 2
        assert {amount: amounts.count(amount) for amount in amounts} == rows

        side = drift_side("current", {"requests": store, **asked})
        for policy in (
            ComparisonPolicy(columns=("amount",)),
            ComparisonPolicy(precision="exact", columns=("country",)),
        ):
            drift = DriftRequest(identity="i", run_id="r", reference=side, current=side, policy=policy)
            found = compare_datasets(_data(side), _data(side), _without_log_columns(drift)).result
            assert (found.reference_rows, found.current_rows) == (len(amounts), len(amounts))
            assert [pin.model_dump(exclude_defaults=True) for pin in found.current] == [{"uri": store}]
        assert sample_table(_data(side), {"amount": "numerical"}, 1000, 7).rows["amount"].to_pylist() == amounts

    @pytest.mark.parametrize("roles", [[], ["champion", "shadow"], ["nobody"]])
    def test_never_count_a_request_twice(self, store: str, roles: list[str]) -> None:
        with pytest.raises(InvalidArgumentError, match="roles"):
            drift_side("current", {"requests": store, "roles": roles})

    def test_are_needed(self, tmp_path: Path) -> None:
        pd.DataFrame({"request_id": ["a"], "row": [0], "requested_at": [AT]}).to_parquet(tmp_path / "log.parquet")
        with pytest.raises(DatasetError, match="must be a prediction log of the model server"):
            _data(DriftSide(requests=str(tmp_path)))
        whole = LoggedRequests(uri=str(tmp_path), column="role", roles=("champion",))
        with pytest.raises(DatasetError, match="no column 'role'"):
            compare_datasets([whole], [whole], ComparisonPolicy())
        with pytest.raises(DatasetError, match="no column 'role'"):
            RequestLog(str(tmp_path), "requested_at", "role", ("champion",)).select(10)


class TestTheStepsOfReplayAndDrift:
    def logged(self, spool: Path, tmp_path: Path, *more: tuple[str, str]) -> str:
        form = LogForm([*COLUMNS[:1], *more], ["long"], LogRule())
        rows = [(float(row), *("x" for _ in more)) for row in range(200)]
        records = form.records(Answered("r", AT, "8", "champion", rows, [1] * 200, 0.1))
        lines = [json.dumps(line) for line in (form.header("fraud", "8"), *records)]
        (spool / segment_name(AT, 1)).write_text("\n".join(lines))
        ship(spool, str(tmp_path / "store"))
        return str(tmp_path / "store")

    @pytest.mark.parametrize(("more", "prefix"), [((), ""), ((("role", "string"),), "mcp_")])
    def test_find_the_columns_of_the_server(
        self, spool: Path, tmp_path: Path, more: tuple[tuple[str, str], ...], prefix: str
    ) -> None:
        uri = self.logged(spool, tmp_path, *more)
        model = ModelUnderTest(model_uri="models:/x")
        request = ReplayRequest(
            identity="i",
            run_id="r",
            candidate=model,
            champion=model,
            source=uri,
            model_type="classifier",
            log="serving",
        )
        found, role_column = _with_log_columns(request)
        assert role_column == f"{prefix}role"
        named = (found.timestamp_column, found.request_id_column, found.prediction_column)
        assert named == (f"{prefix}requested_at", f"{prefix}request_id", f"{prefix}prediction")
        own, _ = _with_log_columns(request.model_copy(update={"timestamp_column": "amount"}))
        assert own.timestamp_column == "amount"

        side = DriftSide(requests=uri)
        drift = DriftRequest(identity="i", run_id="r", reference=side, current=side, policy=ComparisonPolicy())
        assert set(_without_log_columns(drift).ignored_columns) == {prefix + name for name in LOG_COLUMNS}
        wanted = ComparisonPolicy(prediction=f"{prefix}prediction", ignored_columns=("amount",))
        policy = _without_log_columns(drift.model_copy(update={"policy": wanted}))
        assert f"{prefix}prediction" not in policy.ignored_columns
        assert "amount" in policy.ignored_columns

    def test_refuse_other_data_as_a_log(self, tmp_path: Path) -> None:
        pd.DataFrame({"amount": [1.0]}).to_parquet(tmp_path / "data.parquet")
        model = ModelUnderTest(model_uri="models:/x")
        request = ReplayRequest(
            identity="i",
            run_id="r",
            candidate=model,
            champion=model,
            source=str(tmp_path / "data.parquet"),
            model_type="classifier",
            log="serving",
        )
        with pytest.raises(DatasetError, match="must be a prediction log of the model server"):
            _with_log_columns(request)


def test_the_step_stores_what_is_left_when_its_input_ends(spool: Path, tmp_path: Path) -> None:
    segment(spool, 1)
    command = [sys.executable, "-m", "airflow_mcp.work", "ship-log", "--folder", str(spool)]
    command += ["--pod", "pod-a"]
    environment = {**os.environ, ENV_LOG_URI: str(tmp_path / "store")}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert len(parquet_files(tmp_path / "store")) == 1
