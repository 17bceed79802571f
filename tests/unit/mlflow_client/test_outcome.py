"""What one attempt means: repeat, hand on, or which error."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from airflow_mcp.exceptions import (
    InvalidArgumentError,
    MlflowAuthError,
    MlflowConflictError,
    MlflowError,
    MlflowNotFoundError,
    MlflowProtocolError,
    MlflowUnreachableError,
)
from airflow_mcp.mlflow_client.outcome import (
    MAX_BACKOFF,
    MAX_RETRY_AFTER,
    AttemptOutcome,
    Judge,
    NoAnswer,
    Received,
    retry_after_seconds,
    retry_delay,
)
from airflow_mcp.mlflow_client.settings import COMMAND_LINE, MlflowSettings
from airflow_mcp.mlflow_client.wire import ANSWER_TOO_LONG, MlflowRequest, MlflowResponse

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
SETTINGS = MlflowSettings("mlflow_default", "http://host:5000", "http://host:5000", retries=3)
GET = MlflowRequest("get run 'abc'", "GET", "runs/get")
CREATE = MlflowRequest("create run 'a'", "POST", "runs/create", repeatable=False)


def delay(attempt: int, outcome: AttemptOutcome, repeatable: bool = True, jitter: float = 0.0) -> float | None:
    return retry_delay(attempt, outcome, repeatable=repeatable, settings=SETTINGS, jitter=jitter)


def final(result: Received | NoAnswer, request: MlflowRequest = GET, settings: MlflowSettings | None = None) -> Any:
    once = settings or MlflowSettings("mlflow_default", "http://host:5000", "http://host:5000", retries=0)
    return Judge(request, once).judge(result, now=NOW, jitter=0)


def error_answer(status: int, code: str, message: str = "said") -> Received:
    body = json.dumps({"error_code": code, "message": message}).encode()
    return Received(status, {"content-type": "application/json"}, body)


class TestRetryDelay:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    def test_a_repeatable_request_is_repeated_after_a_passing_failure(self, status: int) -> None:
        assert delay(1, AttemptOutcome("answered", status)) == 0.5
        assert delay(1, AttemptOutcome("answered", status), repeatable=False) is None

    @pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 409])
    def test_an_answer_that_will_not_change_is_final(self, status: int) -> None:
        assert delay(1, AttemptOutcome("answered", status, 1.0)) is None

    def test_a_lost_answer_is_repeated_only_when_that_is_harmless(self) -> None:
        assert delay(1, AttemptOutcome("lost")) == 0.5
        assert delay(1, AttemptOutcome("lost"), repeatable=False) is None

    def test_a_request_that_was_never_sent_is_repeated_whatever_it_is(self) -> None:
        assert delay(1, AttemptOutcome("not_sent"), repeatable=False) == 0.5

    def test_it_gives_up_after_the_retries_of_the_connection(self) -> None:
        assert delay(3, AttemptOutcome("not_sent")) == 2.0
        assert delay(4, AttemptOutcome("not_sent")) is None

    def test_waits_double_up_to_the_cap_and_jitter_takes_up_to_half(self) -> None:
        patient = MlflowSettings("c", "http://h", "http://h", retries=20)
        waits = [
            retry_delay(n, AttemptOutcome("lost"), repeatable=True, settings=patient, jitter=0) for n in range(1, 10)
        ]
        assert waits == [0.5, 1, 2, 4, 8, 16, MAX_BACKOFF, MAX_BACKOFF, MAX_BACKOFF]
        assert delay(3, AttemptOutcome("lost"), jitter=1.0) == 1.0

    def test_the_server_may_ask_for_a_wait_within_bounds(self) -> None:
        assert delay(1, AttemptOutcome("answered", 503, 7.0)) == 7.0
        assert delay(1, AttemptOutcome("answered", 503, 86400.0)) == MAX_RETRY_AFTER
        assert delay(1, AttemptOutcome("answered", 503, 0.0)) == 0.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("12", 12.0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, NOW) == seconds


class TestErrors:
    @pytest.mark.parametrize(
        ("result", "kind"),
        [
            (error_answer(404, "RESOURCE_DOES_NOT_EXIST"), MlflowNotFoundError),
            (error_answer(400, "RESOURCE_ALREADY_EXISTS"), MlflowConflictError),
            (error_answer(401, ""), MlflowAuthError),
            (error_answer(403, "PERMISSION_DENIED"), MlflowAuthError),
            (error_answer(400, "INVALID_PARAMETER_VALUE"), MlflowError),
            (error_answer(500, "INTERNAL_ERROR"), MlflowError),
            (error_answer(404, "ENDPOINT_NOT_FOUND"), MlflowProtocolError),
            (Received(404, {"content-type": "text/html"}, b"<html>"), MlflowProtocolError),
            (Received(302, {"location": "/login"}, b""), MlflowProtocolError),
            (Received(200, {"content-type": "text/html"}, b"<html>"), MlflowProtocolError),
            (Received(200, {"content-type": "application/json"}, b'{"run": '), MlflowProtocolError),
            (Received(200, {"content-type": "application/json"}, b"[]"), MlflowProtocolError),
            (Received(200, {"content-type": "application/json"}, b"\xff\xfe{}"), MlflowProtocolError),
            (Received(502, {"content-type": "text/html"}, b"<html>"), MlflowError),
            (NoAnswer("lost", "silent"), MlflowUnreachableError),
        ],
    )
    def test_each_failure_has_its_own_error_that_says_what_was_asked(
        self, result: Received | NoAnswer, kind: type[MlflowError]
    ) -> None:
        error = final(result)
        assert type(error) is kind
        assert str(error).startswith("get run 'abc' at http://host:5000 (connection 'mlflow_default')")

    def test_status_code_and_the_servers_words_are_kept(self) -> None:
        error = final(error_answer(404, "RESOURCE_DOES_NOT_EXIST", "Run with id=abc not found"))
        assert (error.status, error.error_code) == (404, "RESOURCE_DOES_NOT_EXIST")
        assert "Run with id=abc not found" in str(error)

    def test_a_page_of_another_server_points_at_the_connection(self) -> None:
        error = final(Received(200, {"content-type": "text/html"}, b"<html>sign in</html>"))
        assert "this is not MLflow's API: check the host and the path of its address" in str(error)
        assert "sign in" not in str(error)

    def test_refused_credentials_say_what_was_sent(self) -> None:
        for settings, sent in [
            (MlflowSettings("c", "http://h", "http://h", token="s3cret"), "the token"),
            (MlflowSettings("c", "http://h", "http://h", "ann", "pw"), "login and password"),
            (MlflowSettings("c", "http://h", "http://h"), "no credentials"),
        ]:
            error = final(Received(401, {}, b"nope"), settings=settings)
            assert f"{sent} of connection 'c' were sent" in str(error)

    def test_on_the_command_line_variables_are_named_instead_of_extras(self) -> None:
        error = final(Received(401, {}, b"nope"), settings=MlflowSettings(COMMAND_LINE, "http://h", "http://h"))
        assert "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN" in str(error)
        assert "connection" not in str(error)
        assert "extra" not in str(error)

    def test_a_redirect_says_where_to_without_secrets(self) -> None:
        where = {"location": "https://ann:pw-secret@login.example.com/start?code=s3cret"}
        error = final(Received(302, where, b""))
        assert "HTTP 302 and redirects to https://login.example.com/start;" in str(error)

    def test_a_body_that_is_too_large_says_so_and_is_not_sent_again(self) -> None:
        error = final(Received(413, {"content-type": "text/html"}, b"<html>nginx</html>"))
        assert "HTTP 413: the body of the request is larger than" in str(error)
        assert error.is_final
        assert final(error_answer(400, "INVALID_PARAMETER_VALUE")).is_final
        assert not final(error_answer(400, "BAD_REQUEST")).is_final
        assert not final(error_answer(503, "TEMPORARILY_UNAVAILABLE")).is_final

    def test_a_missing_workspace_is_not_taken_for_a_missing_model(self) -> None:
        settings = MlflowSettings("c", "http://h", "http://h", workspace="team-a")
        error = final(error_answer(404, "RESOURCE_DOES_NOT_EXIST", "Workspace 'team-a' not found"), settings=settings)
        assert type(error) is MlflowError
        assert "check extra 'workspace' of connection 'c': 'team-a'" in str(error)

    def test_a_long_message_is_cut(self) -> None:
        text = str(final(error_answer(500, "INTERNAL_ERROR", "x" * 5000)))
        assert "x" * 500 + "..." in text
        assert "x" * 501 not in text

    def test_a_server_that_echoes_credentials_does_not_leak_them(self) -> None:
        settings = MlflowSettings("c", "http://h", "http://h", "ann", "pw-secret", retries=0)
        pair = base64.b64encode(b"ann:pw-secret").decode()
        error = final(error_answer(500, "X", f"Basic {pair} and pw-secret"), settings=settings)
        assert str(error).count("***") == 2
        assert "pw-secret" not in str(error)
        assert pair not in str(error)
        token = MlflowSettings("c", "http://h", "http://h", token="s3cret", retries=0)
        assert "s3cret" not in str(final(NoAnswer("lost", "bad header s3cret"), settings=token))

    @pytest.mark.parametrize("result", [Received(500, {}, b""), NoAnswer("lost", "silent")])
    def test_what_may_have_happened_is_said_when_it_was_not_repeated(self, result: Received | NoAnswer) -> None:
        error = final(result, CREATE, SETTINGS)
        assert "not repeated, because the server may have done it" in str(error)
        assert "may have done it" not in str(final(error_answer(400, "INVALID_PARAMETER_VALUE"), CREATE, SETTINGS))

    @pytest.mark.parametrize("kind", ["hopeless"])
    def test_a_hopeless_failure_is_not_repeated(self, kind: Literal["hopeless"]) -> None:
        assert isinstance(final(NoAnswer(kind, "bad certificate"), GET, SETTINGS), MlflowUnreachableError)

    def test_the_number_of_tries_is_told(self) -> None:
        judge = Judge(GET, MlflowSettings("c", "http://h", "http://h", retries=1))
        assert judge.judge(Received(503, {}, b""), now=NOW, jitter=0) == 0.5
        error = judge.judge(Received(503, {}, b""), now=NOW, jitter=0)
        assert "(tried 2 times)" in str(error)


class TestSuccess:
    def test_json_is_handed_on(self) -> None:
        response = final(Received(200, {}, b'{"a": 1}'))
        assert isinstance(response, MlflowResponse)
        assert response.data == {"a": 1}

    def test_a_file_is_only_a_file_when_the_server_says_so(self) -> None:
        request = MlflowRequest("download", "GET", "get-artifact", expects="attachment")
        good = final(Received(200, {"content-disposition": "attachment; filename=a"}, b"<html>"), request)
        assert good.content == b"<html>"
        assert isinstance(final(Received(200, {"content-type": "text/html"}, b"<html>"), request), MlflowProtocolError)

    def test_an_answer_beyond_the_limit_is_refused(self) -> None:
        error = final(Received(200, {}, b"{}", is_too_long=True))
        assert isinstance(error, MlflowError), "a smaller page may fit, and sensors keep waiting"
        assert error.error_code == ANSWER_TOO_LONG
        assert "larger than max_bytes=67108864; nothing was returned" in str(error)
        file = final(Received(200, {}, b"{}", is_too_long=True), MlflowRequest("get", "GET", "f", expects="attachment"))
        assert isinstance(file, InvalidArgumentError)
