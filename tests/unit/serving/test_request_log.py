"""The prediction log of the front: what is written and left out, and what happens when disk or store fail."""

from __future__ import annotations

import asyncio
import itertools
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_mcp.core.drift.profile import ColumnProfile, DataProfile, Distribution
from airflow_mcp.core.serving.control_settings import ControlSettings
from airflow_mcp.core.serving.frames import AnswerKind, FrameKind
from airflow_mcp.core.serving.outliers import OutlierRanges
from airflow_mcp.core.serving.prediction_log import EVENT_COLUMNS
from airflow_mcp.core.serving.scoring import TableReader
from airflow_mcp.core.serving.signature import Column, ModelSignature
from airflow_mcp.core.serving.traffic import Choice, TrafficPlan
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.serving import request_log as module
from airflow_mcp.serving.exchange import Exchange
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.pool import LoadReport, ModelAnswer, ModelRequest
from airflow_mcp.serving.request_log import RequestLog, RowReader, shipper_environment

V8 = ServedVersion("fraud", "8")
NUMBERS = ModelSignature(columns=(Column("amount", "double"), Column("cards", "long")), outputs=(Column("y", "long"),))
MIXED = ModelSignature(
    columns=(Column("amount", "double"), Column("country", "string"), Column("note", "string", required=False))
)


class Loaded:
    """What the log asks of a version that is loaded."""

    def __init__(self, signature: ModelSignature) -> None:
        self.report = LoadReport(signature=signature)
        self.ready, self.failure = True, ""


def started(tmp_path: Path, signature: ModelSignature = NUMBERS, **settings: Any) -> RequestLog:
    models = ServedModels(lambda *_: pytest.fail("nothing is loaded here"))
    models.pools[V8] = Loaded(signature)  # type: ignore[assignment]
    given = {"log_uri": "memory://log", "log_folder": str(tmp_path), **settings}
    return RequestLog(models, ControlSettings.model_validate(given))


def request(signature: ModelSignature, body: dict[str, Any]) -> ModelRequest:
    """Read a body as the server does."""
    rows = TableReader(signature).read(json.dumps(body).encode())
    assert rows is not None
    return ModelRequest(rows.kind, rows.payload, rows.number, rows.form, request_id=b"r-1")


def numbers(*rows: tuple[float, int]) -> ModelRequest:
    return request(NUMBERS, {"dataframe_split": {"columns": ["amount", "cards"], "data": rows}})


def answered(*values: int) -> ModelAnswer:
    return ModelAnswer(AnswerKind.INTEGERS, list(values), len(values))


def written(log: RequestLog, folder: Path) -> list[dict[str, Any]]:
    """Close everything, and return the lines of all segments without their headers."""
    for key in list(log._open):
        log._close(key)
    paths = sorted(path for path in folder.iterdir() if path.suffix == ".jsonl" and not path.name.startswith("_"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()[1:]]


class TestRows:
    def test_of_numbers_are_read_back(self) -> None:
        reader = RowReader(NUMBERS.pack_codes)
        found = reader.read(numbers((1.5, 3), (-2.0, 4)))
        assert found is not None
        assert (found.rows, found.positions) == ([(1.5, 3), (-2.0, 4)], None)

    def test_of_mixed_types_are_read_back_with_the_columns_that_were_sent(self) -> None:
        reader = RowReader(MIXED.pack_codes)
        records = [{"amount": 1.5, "country": "DE"}, {"amount": 2.5, "country": "AT"}]
        found = reader.read(request(MIXED, {"dataframe_records": records}))
        assert found is not None
        assert [list(row) for row in found.rows] == [[1.5, "DE"], [2.5, "AT"]]
        assert found.positions is not None
        assert list(found.positions) == [0, 1]

    def test_that_only_the_model_process_reads_are_none(self) -> None:
        body = msgspec.msgpack.encode(("text/csv", b"a,b\n1,2\n", True))
        assert RowReader("").read(ModelRequest(FrameKind.BODY, body, 1)) is None
        assert RowReader("").read(ModelRequest(FrameKind.PACKED, struct.pack("<d", 1.0), 1)) is None


class TestTheLog:
    def test_has_a_line_for_each_row(self, tmp_path: Path) -> None:
        log = started(tmp_path)
        log.write(V8, "champion", numbers((1.5, 3), (2.5, 4)), answered(0, 1), 0.01)
        lines = written(log, tmp_path)
        assert [(line["request_id"], line["row"], line["amount"], line["prediction"]) for line in lines] == [
            ("r-1", 0, 1.5, 0),
            ("r-1", 1, 2.5, 1),
        ]
        assert {line["role"] for line in lines} == {"champion"}
        assert log.logged == 2

    def test_begins_a_segment_with_what_its_rows_are(self, tmp_path: Path) -> None:
        log = started(tmp_path, log_exclude="cards")
        log.write(V8, "champion", numbers((1.5, 3)), answered(0), 0.01)
        written(log, tmp_path)
        header = json.loads(next(tmp_path.glob("*.jsonl")).read_text().splitlines()[0])
        assert (header["model"], header["version"], header["prediction"]) == ("fraud", "8", "long")
        assert header["types"] == {"amount": "double"}

    def test_leaves_out_what_it_cannot_read_and_counts_it(self, tmp_path: Path) -> None:
        log = started(tmp_path)
        log.write(V8, "champion", ModelRequest(FrameKind.BODY, b"", 1), answered(0), 0.01)
        log.write(V8, "champion", numbers((1.5, 3)), answered(0, 1), 0.01)  # not one answer per row
        log.write(ServedVersion("fraud", "9"), "champion", numbers((1.5, 3)), answered(0), 0.01)
        assert log.dropped == {"form": 2, "answer": 1}
        assert written(log, tmp_path) == []

    @pytest.mark.parametrize("setting", ["log_exclude", "log_hash"])
    def test_has_nothing_of_a_version_without_a_column_that_must_be_hidden(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, setting: str
    ) -> None:
        log = started(tmp_path, **{setting: "amuont"}, log_hash_key="0123456789abcdef")
        for _ in range(2):
            log.write(V8, "champion", numbers((1.5, 3)), answered(0), 0.01)
        assert list(tmp_path.iterdir()) == []
        assert (log.logged, log.dropped) == (0, {"columns": 2})
        (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert f"no answer of {V8} is logged" in line
        assert "AIRFLOW_MCP_SERVING_LOG_EXCLUDE" in line
        assert "got 'amuont'" in line

    def test_has_nothing_of_a_version_without_a_signature_when_a_column_must_be_hidden(self, tmp_path: Path) -> None:
        log = started(tmp_path, ModelSignature(), log_exclude="amount")
        log.write(V8, "champion", numbers((1.5, 3)), answered(0), 0.01)
        assert list(tmp_path.iterdir()) == []
        assert log.dropped == {"form": 1}

    def test_closes_a_segment_that_is_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_SEGMENT_BYTES", 1000)
        log = started(tmp_path)
        for _ in range(30):
            log.write(V8, "champion", numbers((1.5, 3)), answered(0), 0.01)
        assert len(list(tmp_path.glob("[0-9]*.jsonl"))) > 3
        assert len(written(log, tmp_path)) == 30

    def test_closes_a_segment_that_is_old_or_whose_version_is_gone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = started(tmp_path)
        log.write(V8, "champion", numbers((1.5, 3)), answered(0), 0.01)
        log._look()
        assert list(tmp_path.glob("[0-9]*.jsonl")) == []
        monkeypatch.setattr(module, "MAX_SEGMENT_SECONDS", 0.0)
        log._look()
        assert len(list(tmp_path.glob("[0-9]*.jsonl"))) == 1
        monkeypatch.setattr(module, "MAX_SEGMENT_SECONDS", 60.0)
        log.write(V8, "champion", numbers((1.5, 3)), answered(0), 0.01)
        log._models.pools.clear()
        log._look()
        assert len(list(tmp_path.glob("[0-9]*.jsonl"))) == 2

    def test_gives_up_the_oldest_segments_when_the_store_is_away_for_long(self, tmp_path: Path) -> None:
        log = started(tmp_path, log_disk_bytes=25)
        for number in range(4):
            (tmp_path / f"{number:013d}-1.jsonl").write_text("x" * 10)
        log._look()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0000000000002-1.jsonl", "0000000000003-1.jsonl"]
        assert log.dropped == {"room": 2}

    def test_never_raises_when_the_disk_is_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        log = started(tmp_path)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module._Segment, "write", full)
        log.write(V8, "champion", numbers((1.5, 3)), answered(0), 0.01)
        assert log.dropped == {"disk": 1}
        monkeypatch.undo()
        log.write(V8, "champion", numbers((1.5, 3)), answered(0), 0.01)
        assert log.logged == 1
        assert len(written(log, tmp_path)) == 1

    def test_takes_over_what_a_killed_server_has_left_open(self, tmp_path: Path) -> None:
        (tmp_path / "_open-0000000000001-1.jsonl").write_text("{}\n")
        started(tmp_path)._folder.take_over()
        assert [path.name for path in tmp_path.iterdir()] == ["0000000000001-1.jsonl"]

    def test_takes_over_nothing_of_a_server_that_lives(self, tmp_path: Path) -> None:
        other, log = started(tmp_path), started(tmp_path)
        other.write(V8, "champion", numbers((1.5, 3)), answered(0), 0.01)
        log._folder.own()
        log._folder.take_over()
        assert list(tmp_path.glob("[0-9]*.jsonl")) == []
        other.write(V8, "champion", numbers((2.5, 4)), answered(1), 0.01)
        assert [line["amount"] for line in written(other, tmp_path)] == [1.5, 2.5]

    def test_takes_over_what_a_process_that_was_killed_has_left_open(self, tmp_path: Path) -> None:
        program = (
            "import os, pathlib, signal, sys\n"
            "from airflow_mcp.serving.log_folder import LogFolder\n"
            "folder = LogFolder(pathlib.Path(sys.argv[1]))\n"
            "folder.own()\n"
            "(folder.path / f'_open-0000000000001-1-{folder.owner}.jsonl').write_text('{}')\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
        assert len(list(tmp_path.glob("_owner-*.lock"))) == 1
        started(tmp_path)._folder.take_over()
        assert [path.name.rpartition("-")[0] for path in tmp_path.iterdir()] == ["0000000000001-1"]

    def test_two_servers_never_write_one_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module.time, "time", lambda: 1_795_975_200.0)
        logs = started(tmp_path), started(tmp_path)
        for log in logs:
            log.write(V8, "champion", numbers((1.5, 3)), answered(0), 0.01)
            log._close(V8)
        assert len(list(tmp_path.glob("[0-9]*.jsonl"))) == 2

    def test_is_for_the_user_of_the_server_alone(self, tmp_path: Path) -> None:
        folder = tmp_path / "log"
        folder.mkdir(mode=0o755)
        log = started(folder)
        log.write(V8, "champion", numbers((1.5, 3)), answered(0), 0.01)
        log._close(V8)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


class TestEvents:
    """Requests without rows: those that failed, and answers whose rows cannot be logged."""

    def exchange(self, status: int, code: str, asked: ModelRequest | None = None, model: str = "fraud") -> Exchange:
        made = Exchange({"headers": [(b"x-request-id", b"r-7")]}, 0.0)
        made.model, made.status, made.code, made.seconds = model, status, code, 0.25
        made.request = asked
        made.choice = None if code == "not_ready" else Choice(V8, "champion")
        return made

    def served(self, tmp_path: Path, **settings: Any) -> RequestLog:
        log = started(tmp_path, **settings)
        log._models.assign("fraud", TrafficPlan(champion=V8))
        return log

    def test_of_failed_requests_hold_no_input(self, tmp_path: Path) -> None:
        log = self.served(tmp_path)
        log.record(self.exchange(500, "model_failed", numbers((77.5, 3))))
        log.record(self.exchange(503, "not_ready"))
        lines = written(log, tmp_path)
        assert [(line["status"], line["error"], line["model_version"], line["role"]) for line in lines] == [
            (500, "model_failed", "8", "champion"),
            (503, "not_ready", "", ""),
        ]
        assert {(line["request_id"], line["latency_ms"]) for line in lines} == {("r-7", 250.0)}
        assert set(lines[0]) == set(EVENT_COLUMNS)
        assert (log.logged, log.events, log.dropped) == (0, 2, {})
        assert not any("77.5" in path.read_text() for path in tmp_path.glob("*.jsonl"))

    def test_of_answers_whose_rows_cannot_be_logged_are_no_errors(self, tmp_path: Path) -> None:
        log = self.served(tmp_path)
        exchange = self.exchange(200, "", ModelRequest(FrameKind.BODY, b"", 1, request_id=b"r-7"))
        exchange.answer = answered(0)
        log.record(exchange)
        (line,) = written(log, tmp_path)
        assert (line["status"], line["error"]) == (200, "")

    def test_are_not_written_for_names_that_callers_make_up(self, tmp_path: Path) -> None:
        log = self.served(tmp_path)
        log.record(self.exchange(404, "unknown_model", model="../x"))
        log.record(self.exchange(404, "unknown_model", model=""))
        assert list(tmp_path.iterdir()) == []

    def test_are_a_sample_when_answers_are_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        log = self.served(tmp_path, log_sample=0.5)
        for draw in (0.7, 0.3):
            monkeypatch.setattr(module.random, "random", lambda draw=draw: draw)
            log.record(self.exchange(500, "model_failed", numbers((1.0, 1))))
        assert len(written(log, tmp_path)) == 1

    def test_stay_in_one_segment_whatever_becomes_of_versions(self, tmp_path: Path) -> None:
        log = self.served(tmp_path)
        for _ in range(2):
            log.record(self.exchange(500, "model_crashed", numbers((1.0, 1))))
            log._models.pools.clear()
            log._look()
        assert list(tmp_path.glob("[0-9]*.jsonl")) == []
        assert len(written(log, tmp_path)) == 2


def test_the_process_that_stores_segments_is_started_again_ever_more_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, starts, now = started(tmp_path), [], 0.0

    class Ended:
        returncode = 2

    async def start(*_: object, **__: object) -> Ended:
        starts.append(now)
        return Ended()

    monkeypatch.setattr(module.asyncio, "create_subprocess_exec", start)
    monkeypatch.setattr(module.time, "monotonic", lambda: now)

    async def run() -> None:
        nonlocal now
        for _ in range(300):
            await log._keep_shipping()
            now += 1.0

    asyncio.run(run())
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert len(starts) < 12
    assert pauses == sorted(pauses)
    assert 60 <= pauses[-1] <= 62


def test_rows_unlike_the_training_data_are_counted_also_without_a_log(tmp_path: Path) -> None:
    log = started(tmp_path, log_uri="", outliers=True)
    amount = Distribution(values=(0.0, 10.0), at=(1, 1), mean=5.0, variance=25.0)
    column = ColumnProfile(name="amount", kind="numerical", type="double", distribution=amount)
    log.ranges[V8] = OutlierRanges(DataProfile(rows=2, columns=(column,)))
    log.write(V8, "champion", numbers((5.0, 1), (11.0, 1), (-1.0, 1)), answered(0, 0, 0), 0.01)
    assert log.outliers == {V8: [2, 3]}
    assert list(tmp_path.iterdir()) == []


def test_the_process_that_stores_segments_has_the_credentials_of_the_store_alone() -> None:
    environment = {
        "AWS_SECRET_ACCESS_KEY": "of the store",
        "MLFLOW_TRACKING_PASSWORD": "of MLflow",
        "AIRFLOW_MCP_SERVING_WEBHOOK_SECRET": "ours",
        "AIRFLOW_MCP_SERVING_LOG_URI": "overridden",
    }
    assert shipper_environment(environment, "s3://log") == {
        "AWS_SECRET_ACCESS_KEY": "of the store",
        "AIRFLOW_MCP_SERVING_LOG_URI": "s3://log",
    }
