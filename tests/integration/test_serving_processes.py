"""A real model server whose model dies, hangs and raises, and odd bodies, while a client asks all the time."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.model_server import Answer, ModelServer, children, save_mischief

pytestmark = pytest.mark.integration
TIMEOUT = 1.5
SECRET = "4929123412341234"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that misbehaves on demand."""
    return save_mischief(tmp_path_factory.mktemp("models") / "mischief")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ModelServer]:
    """A server of that model, with two processes and short timeouts."""
    environment = {"MLFLOW_TRACKING_PASSWORD": SECRET}
    limits = {"request_timeout": TIMEOUT, "body_timeout": 1, "max_body_bytes": 200_000, "inline_body_bytes": 50_000}
    with ModelServer(str(folder), environment, processes=2, **limits) as started:
        yield started.wait_until_ready()


def rows(*acts: str, x: float = 1.5) -> dict[str, Any]:
    return {"dataframe_records": [{"x": x, "act": act} for act in acts]}


class Client:
    """A client that asks all the time, and knows the right answers."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.wrong: list[Answer] = []
        self.asked = 0

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join(timeout=30)

    def _ask(self) -> None:
        while not self._ends.is_set():
            x = float(self.asked % 97)
            answer = self._server.post(rows("", x=x))
            self.asked += 1
            if answer.status != 200 or answer.json["predictions"] != [2 * x]:
                self.wrong.append(answer)


@pytest.fixture
def client(server: ModelServer) -> Iterator[Client]:
    with Client(server) as asking:
        yield asking
    assert asking.asked > 0
    assert asking.wrong == []


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


# --- answers ---------------------------------------------------------------------------------------------------------


def test_an_answer_names_its_version_role_and_request(server: ModelServer) -> None:
    answer = server.post(rows("", ""), x_request_id='odd"id')
    assert answer.json == {
        "predictions": [3.0, 3.0],
        "model": {"name": "mischief", "version": "local"},
        "request_id": 'odd"id',
    }
    assert answer.headers["x-request-id"] == 'odd"id'
    assert (answer.headers["x-model-version"], answer.headers["x-model-role"]) == ("local", "champion")
    replaced = server.post(rows(""), x_request_id="with a space").headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]+", replaced)


def test_the_four_forms_csv_and_parameters_are_understood(server: ModelServer) -> None:
    table = {"columns": ["x", "act"], "data": [[1.5, ""]]}
    for body in (
        {"dataframe_split": table},
        {"instances": [{"x": 1.5, "act": ""}]},
        {"inputs": {"x": [1.5], "act": [""]}},
        {**rows(""), "params": {"times": 2}},
    ):
        assert server.post(body).json["predictions"] == [3.0]
    assert server.post({**rows(""), "params": {"times": 10}}).json["predictions"] == [15.0]
    csv = server.post(b"x,act\n1.5,a\n4,b\n", content_type="text/csv; charset=utf-8")
    assert csv.json["predictions"] == [3.0, 8.0]


def test_the_open_inference_protocol_is_understood(server: ModelServer) -> None:
    inputs = [
        {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.5, 4]},
        {"name": "act", "shape": [2], "datatype": "BYTES", "data": ["", ""]},
    ]
    answer = server.post({"id": "abc", "inputs": inputs}, "/v2/models/mischief/infer").json
    assert answer == {
        "model_name": "mischief",
        "model_version": "local",
        "id": "abc",
        "outputs": [{"name": "predictions", "shape": [2], "datatype": "FP64", "data": [3.0, 8.0]}],
    }
    assert server.post({"inputs": inputs}, "/v2/models/mischief/versions/local/infer").status == 200
    assert server.post({"inputs": inputs}, "/v2/models/mischief/versions/7/infer").error == "unknown_version"
    assert server.post({"inputs": inputs}, "/v2/models/other/infer").error == "unknown_model"
    metadata = server.get("/v2/models/mischief").json
    assert [each["datatype"] for each in metadata["inputs"]] == ["FP64", "BYTES"]
    assert server.get("/v2/models/mischief/ready").status == 200


def test_pages_describe_the_server_without_the_internet(server: ModelServer) -> None:
    assert server.get("/healthz").json.keys() == {"status", "model_version", "uptime"}
    assert server.get("/v2/health/ready").json["ready"] is True
    assert server.get("/ping").status == server.get("/health").status == 200
    assert server.get("/status").json["versions"]["mischief/local"]["is_batched"] is True
    docs = server.get("/docs")
    assert docs.headers["content-type"].startswith("text/html")
    assert not re.search(rb"https?:|//[a-z]|<script|<link|@import", docs.body)
    schema = server.get("/openapi.json").json["paths"]["/invocations"]["post"]["requestBody"]["content"]
    assert '"act"' in json.dumps(schema["application/json"])
    assert server.get("/nothing").error == "not_found"


def test_no_page_can_be_written_to(server: ModelServer) -> None:
    for path in ("/status", "/metrics", "/v2/models/mischief", "/models"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert server.ask(method, path, b"{}").status == 405
    refused = server.ask("GET", "/invocations", None)
    assert (refused.status, refused.headers["allow"]) == (405, "POST")


def test_metrics_count_requests_predictions_and_batches(server: ModelServer) -> None:
    before = metric(server, "airflow_mcp_serving_requests_total", 'code="200"')
    server.post(rows(""))
    assert metric(server, "airflow_mcp_serving_requests_total", 'code="200"') >= before + 1
    assert metric(server, "airflow_mcp_serving_batch_rows_count") > 0
    assert metric(server, "process_start_time_seconds") > 1e9


def metric(server: ModelServer, name: str, label: str = "") -> float:
    lines = server.get("/metrics").body.decode().splitlines()
    found = [line for line in lines if re.match(rf"{name}[{{ ]", line) and label in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


# --- bodies ----------------------------------------------------------------------------------------------------------

GOOD = json.dumps({"dataframe_records": [{"x": 1.5, "act": ""}]}).encode()
BODIES: dict[str, tuple[Any, int, str]] = {
    "cut off": (GOOD[:-7], 400, "invalid_body"),
    "empty": (b"", 400, "invalid_body"),
    "not UTF-8": (GOOD.replace(b'""', b'"\xff"'), 400, "invalid_body"),
    "deep": (b"[" * 40_000, 400, "invalid_body"),
    "deep and long": (b"[" * 150_000, 400, "invalid_body"),
    "NaN": (GOOD.replace(b"1.5", b"NaN"), 400, "invalid_body"),
    "no number": (GOOD.replace(b"1.5", SECRET.encode() + b".x"), 400, "invalid_body"),
    "text for a number": (GOOD.replace(b"1.5", f'"{SECRET}"'.encode()), 400, "invalid_rows"),
    "number for text": (GOOD.replace(b'""', SECRET.encode()), 400, "invalid_rows"),
    "missing column": ({"dataframe_records": [{"act": SECRET}]}, 400, "invalid_rows"),
    "wrong and long": ({"dataframe_records": [{"x": [SECRET], "act": ""}] * 2000}, 400, "invalid_rows"),
    "wrong parameter": ({"dataframe_records": [{"x": 1, "act": ""}], "params": {"times": SECRET}}, 400, "invalid_rows"),
    "extra column": ({"dataframe_records": [{"x": 1, "act": "", "more": SECRET}]}, 200, ""),
    "2**70": (GOOD.replace(b"1.5", str(2**70).encode()), 200, ""),
    "null": (GOOD.replace(b"1.5", b"null"), 200, ""),
    "10 MB": (b" " * 10_000_000, 413, "too_large"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_of_every_kind(server: ModelServer, client: Client, name: str) -> None:
    body, status, code = BODIES[name]
    answer = server.post(body)
    assert answer.status == status, answer.body
    assert SECRET.encode() not in answer.body
    if code:
        assert answer.error == code
        assert answer.json["error"]["request_id"] == answer.headers["x-request-id"]


def test_long_bodies_are_read_in_the_model_process_with_the_same_result(server: ModelServer, client: Client) -> None:
    many = {"dataframe_records": [{"x": float(x), "act": ""} for x in range(4000)]}
    assert len(json.dumps(many)) > 50_000
    assert server.post(many).json["predictions"] == [2.0 * x for x in range(4000)]


def test_other_media_types_are_refused(server: ModelServer) -> None:
    assert server.post(rows(""), content_type="application/xml").status == 415
    assert server.post(rows(""), content_type="application/json; charset=latin-1").status == 415
    assert server.post(rows(""), accept="text/html").error == "not_acceptable"
    assert server.post(rows(""), accept="text/html, application/*;q=0.5").status == 200


def test_a_body_without_a_length_is_bounded_too(server: ModelServer, client: Client) -> None:
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + chunk * 4)
        answer = b""
        while part := connection.recv(4096):  # until the server closes the connection
            answer += part
        assert answer.startswith(b"HTTP/1.1 413 ")


def test_slow_callers_get_408_and_hold_up_nobody(server: ModelServer, client: Client) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_headers_that_do_not_arrive_in_time_close_the_connection(server: ModelServer, client: Client) -> None:
    for begun in (b"", b"POST /invocations HTTP/1.1\r\nhost: x\r\n", b"GET /healthz HTTP/1.1\r\n\r\nGET /hea"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(begun)
            while connection.recv(4096):
                pass
            assert connection.recv(1) == b""


def test_callers_that_leave_are_noted_and_hold_up_nobody(server: ModelServer, client: Client) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(
            b"POST /invocations HTTP/1.1\r\nhost: x\r\nx-request-id: leaves\r\ncontent-length: 9\r\n\r\n{"
        )
    wait_for(lambda: any('"leaves"' in line and '"status":499' in line for line in server.lines))
    assert server.post(rows("")).status == 200


def test_a_thousand_idle_connections_hold_up_nobody(server: ModelServer, client: Client) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(1000)]
    try:
        assert server.post(rows("")).status == 200
    finally:
        for connection in idle:
            connection.close()


# --- processes -------------------------------------------------------------------------------------------------------


def test_an_error_of_the_model_is_500_and_fails_alone(server: ModelServer, client: Client) -> None:
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda act=act: answers.append(server.post(rows(act)))) for act in ["raise", *[""] * 12]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200] * 12 + [500]
    failed = next(answer for answer in answers if answer.status == 500)
    assert failed.json["error"]["message"] == "the model raised ValueError"


def test_a_killed_process_costs_no_request(server: ModelServer, client: Client) -> None:
    before = server.model_processes()
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: len(server.model_processes()) == 2 and set(server.model_processes()) != set(before))
    assert metric(server, "airflow_mcp_serving_process_restarts_total") >= 1


def test_a_request_during_which_the_process_dies_is_asked_again(server: ModelServer, client: Client) -> None:
    assert server.post(rows("once", x=4.0)).json["predictions"] == [8.0]


def test_a_request_that_kills_twice_is_500_and_the_version_goes_on(server: ModelServer, client: Client) -> None:
    for _ in range(3):  # more deaths in a minute than a version may have by itself
        assert server.post(rows("abort")).error == "model_crashed"
    wait_for(lambda: len(server.model_processes()) == 2)
    assert server.get("/readyz").status == 200


def test_a_process_that_hangs_is_replaced(server: ModelServer) -> None:
    before = set(server.model_processes())
    assert server.post(rows("hang")).error == "timeout"
    wait_for(lambda: len(set(server.model_processes()) - before) == 1 and len(server.model_processes()) == 2)
    assert server.post(rows("")).status == 200


def answering(server: ModelServer) -> int:
    """Return how many processes are ready; one that still starts is not among them."""
    (version,) = json.loads(server.get("/status").body)["versions"].values()
    return int(version["processes"])


def test_processes_that_are_stopped_with_their_loader_are_replaced(server: ModelServer) -> None:
    # A process that still starts gets no requests, and has the whole time for loading before it is replaced.
    wait_for(lambda: answering(server) == 2)
    before = [*children(server.process.pid), *server.model_processes()]
    for pid in before:
        os.kill(pid, signal.SIGSTOP)
    for _ in range(2):  # one for each process
        assert server.post(rows("")).error == "timeout"
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before), 150)
    wait_for(lambda: len(server.model_processes()) == 2, 150)
    assert server.post(rows("")).status == 200


def test_models_see_no_credentials(server: ModelServer) -> None:
    assert server.post(rows("secret")).json["predictions"] == [0.0]
    assert server.post(rows("home")).json["predictions"] == [0.0]  # files in the home that they see


# --- other settings, and one process ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(folder: Path) -> Iterator[ModelServer]:
    """A server with one process, MLflow's coercion, no batches, and no second try after a crash."""
    settings = {"coercion": "mlflow", "retry_after_crash": "false", "batch": "never", "access_log": "false"}
    with ModelServer(f"other={folder}", **settings) as started:
        yield started.wait_until_ready()


def test_mlflow_s_parser_reads_what_the_decoder_refuses_where_that_is_wanted(other: ModelServer) -> None:
    assert other.post({"dataframe_records": [{"x": "1.5", "act": ""}]}).json["predictions"] == [3.0]
    assert other.post(GOOD.replace(b"1.5", b"NaN")).json["predictions"] == [None]
    refused = other.post({"dataframe_records": [{"x": SECRET + "x", "act": ""}]})
    assert (refused.status, refused.error) == (400, "invalid_rows")
    assert SECRET not in refused.body.decode()


def test_batches_and_the_log_of_requests_can_be_switched_off(other: ModelServer) -> None:
    report = other.get("/status").json["versions"]["other/local"]
    assert (report["is_batched"], report["why_alone"]) == (False, "the settings say so")
    other.post(rows(""))
    assert other.lines == []


def test_a_model_with_effects_is_not_asked_again(other: ModelServer) -> None:
    assert other.post(rows("abort", x=2.0)).error == "model_crashed"
    assert other.post(rows("", x=2.0)).json["predictions"] == [4.0]
    before = other.model_processes()
    assert other.post(rows("abort", x=2.0)).error == "model_crashed"
    assert other.model_processes() == before  # the same rows are known, so nothing was ended


def test_the_model_is_loaded_again_when_its_loader_dies(other: ModelServer) -> None:
    [loader], [answering] = children(other.process.pid), other.model_processes()
    os.kill(loader, signal.SIGKILL)
    assert other.post(rows("")).status == 200
    wait_for(lambda: set(children(other.process.pid)) - {loader, answering} != set(), 60)
    os.kill(answering, signal.SIGKILL)
    wait_for(lambda: len(other.model_processes()) == 1, 60)
    assert other.post(rows("")).status == 200


def has_replaced(server: ModelServer, pid: int) -> bool:
    """Return whether another process is there and ready; one that ends before is not counted as a death in service."""
    now = server.model_processes()
    versions = server.get("/status").json["versions"]
    return len(now) == 1 and pid not in now and all(version["ready"] for version in versions.values())


def test_a_version_whose_processes_die_unasked_is_given_up_and_loaded_again(other: ModelServer) -> None:
    wait_for(lambda: other.get("/readyz").status == 200 and len(other.model_processes()) == 1, 60)
    for _ in range(3):
        [pid] = other.model_processes()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: has_replaced(other, pid) or other.get("/readyz").status == 503)
    wait_for(lambda: other.get("/readyz").status == 503)
    assert "died 3 times" in other.get("/readyz").json["reason"]
    assert other.post(rows("")).error == "not_ready"
    assert "retry-after" in other.post(rows("")).headers
    other.wait_until_ready()
    assert other.post(rows("")).status == 200


# --- the end ---------------------------------------------------------------------------------------------------------


def test_the_end_of_the_server_costs_no_request(folder: Path) -> None:
    with ModelServer(str(folder), drain_seconds=1.0) as server:
        server.wait_until_ready()
        kept, statuses, closing = kept_open(server), [], False
        answering = server.model_processes()
        server.process.terminate()
        while not closing:
            status, closing = kept()
            statuses.append(status)
        assert set(statuses) == {200}
        assert server.stop() == 0
        assert [json.loads(line)["status"] for line in server.lines] == statuses
        assert all(json.loads(line)["level"] for line in server.errors)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in answering))


def kept_open(server: ModelServer) -> Callable[[], tuple[int, bool]]:
    """Return what asks on one connection that stays open, and returns the status and whether it is to be closed."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)

    def ask() -> tuple[int, bool]:
        connection.request("POST", "/invocations", json.dumps(rows("")), {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        time.sleep(0.01)
        return response.status, response.getheader("connection") == "close"

    return ask
