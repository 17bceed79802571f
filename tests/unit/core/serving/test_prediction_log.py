"""The rows of the prediction log: names, hidden columns, what answers become, and where objects are kept."""

from __future__ import annotations

import pytest

from airflow_mcp.core.serving.prediction_log import (
    LOG_COLUMNS,
    Answered,
    Event,
    LogForm,
    LogRule,
    events_of,
    find_our_columns,
    object_path,
    oldest_beyond,
    our_columns,
    segment_name,
)

AT = 1_795_975_200.25  # 2026-11-29T18:00:00.25 UTC
COLUMNS = [("amount", "double"), ("country", "string")]


def answered(predictions: list[object], rows: list[tuple[object, ...]] | None = None) -> Answered:
    return Answered("r1", AT, "8", "champion", rows or [(1.5, "DE")], predictions, 0.0123456)


class TestOurColumns:
    def test_have_their_own_names(self) -> None:
        assert our_columns(["amount"]) == {name: name for name in LOG_COLUMNS}

    def test_all_get_a_prefix_when_the_model_has_one_of_the_names(self) -> None:
        assert our_columns(["amount", "role"])["request_id"] == "mcp_request_id"

    def test_get_a_longer_prefix_when_that_is_taken_too(self) -> None:
        assert our_columns(["role", "mcp_row"])["row"] == "mcp_mcp_row"

    @pytest.mark.parametrize("inputs", [["amount"], ["role", "prediction"], ["role", "mcp_row"], list(LOG_COLUMNS)])
    def test_are_found_again_in_a_log(self, inputs: list[str]) -> None:
        names = our_columns(inputs)
        assert find_our_columns([*inputs, *names.values()]) == names

    @pytest.mark.parametrize("columns", [[], ["amount"], ["prediction", "role"], ["mcp_row"]])
    def test_are_not_found_in_other_data(self, columns: list[str]) -> None:
        assert find_our_columns(columns) == {}


class TestRows:
    def test_have_the_inputs_and_what_was_answered(self) -> None:
        (record,) = LogForm(COLUMNS, ["double"], LogRule()).records(answered([0.7]))
        assert record == {
            "request_id": "r1",
            "row": 0,
            "requested_at": "2026-11-29T18:00:00.250000+00:00",
            "model_version": "8",
            "role": "champion",
            "prediction": 0.7,
            "probability": None,
            "latency_ms": 12.346,
            "amount": 1.5,
            "country": "DE",
        }

    def test_leave_personal_columns_out_or_hash_them(self) -> None:
        rule = LogRule(frozenset({"amount"}), frozenset({"country"}), b"key")
        form = LogForm(COLUMNS, [], rule)
        first, second = form.records(answered([1, 1], [(1.5, "DE"), (2.5, "DE")]))
        assert "amount" not in first
        assert first["country"] == second["country"] != "DE"
        assert form.types == {"country": "string"}
        other = LogForm(COLUMNS, [], LogRule(frozenset(), frozenset({"country"}), b"other"))
        assert other.records(answered([1]))[0]["country"] != first["country"]
        assert form.records(answered([1], [(1.5, None)]))[0]["country"] is None

    def test_have_null_for_optional_columns_that_were_not_sent(self) -> None:
        form = LogForm([*COLUMNS, ("cards", "long")], [], LogRule())
        (record,) = form.records(answered([1], [("DE", 3)]), [1, 2])
        assert (record["amount"], record["country"], record["cards"]) == (None, "DE", 3)

    @pytest.mark.parametrize(
        ("answer", "prediction", "probability"),
        [
            (1, 1, None),
            ("yes", "yes", None),
            (None, None, None),
            ([0.5], 0.5, None),
            ([0.2, 0.8], "[0.2, 0.8]", None),
            ({"prediction": 1, "probability": 0.9}, 1, 0.9),
            ({"prediction": 1, "probability": "high"}, 1, None),
            ({"score": 3}, '{"score": 3}', None),
        ],
    )
    def test_hold_any_answer(self, answer: object, prediction: object, probability: float | None) -> None:
        (record,) = LogForm(COLUMNS, [], LogRule()).records(answered([answer]))
        assert (record["prediction"], record["probability"]) == (prediction, probability)


class TestPlaces:
    def test_sort_by_time(self) -> None:
        names = [segment_name(AT, 10), segment_name(AT + 1, 2), segment_name(1.0, 3)]
        assert sorted(names) == [names[2], names[0], names[1]]

    def test_name_model_day_and_hour(self) -> None:
        place = object_path("fraud", segment_name(AT, 3), "pod-a")
        assert place == "model=fraud/date=2026-11-29/hour=18/1795975200250-pod-a-3.parquet"

    def test_stay_below_the_folder_whatever_the_name(self) -> None:
        for name in ("../x", "a/b", "..", "", "a=b"):
            parts = object_path(name, segment_name(AT, 1), "../p").split("/")
            assert len(parts) == 4
            assert ".." not in (parts[0].removeprefix("model="), parts[3])

    def test_of_two_models_are_never_the_same(self) -> None:
        names = ["sp ace.x", "sp_ace.x", "sp~20ace.x", "sp/ace.x", "ä", "a", "", "_", "~", ".", "..", "~2E", "~~2E"]
        assert len({object_path(name, segment_name(AT, 1), "p") for name in names}) == len(names)
        assert object_path("sp ace.x", segment_name(AT, 1), "p").startswith("model=sp~20ace.x/")

    def test_of_events_are_hidden_from_readers_of_rows(self) -> None:
        place = object_path("fraud", segment_name(AT, 3), "pod-a", events=True)
        assert place == "_events/model=fraud/date=2026-11-29/hour=18/1795975200250-pod-a-3.parquet"

    @pytest.mark.parametrize(
        ("log", "events"),
        [
            ("s3://logs/x", "s3://logs/x/_events"),
            ("s3://logs/x/model=fraud/", "s3://logs/x/_events/model=fraud"),
            ("/logs/model=fraud/date=2026-11-*", "/logs/_events/model=fraud/date=2026-11-*"),
        ],
    )
    def test_of_events_follow_from_the_part_of_the_log_that_is_read(self, log: str, events: str) -> None:
        assert events_of(log) == events

    def test_of_the_oldest_segments_go_first(self) -> None:
        sizes = {segment_name(second, 1): 10 for second in (3, 1, 2)}
        assert oldest_beyond(sizes, 30) == []
        assert oldest_beyond(sizes, 29) == [segment_name(1, 1)]
        assert oldest_beyond(sizes, 0) == sorted(sizes)


def test_an_event_says_what_became_of_a_request() -> None:
    assert Event("r1", AT, "8", "champion", 500, "model_failed", 0.0123456).record() == {
        "request_id": "r1",
        "requested_at": "2026-11-29T18:00:00.250000+00:00",
        "model_version": "8",
        "role": "champion",
        "status": 500,
        "error": "model_failed",
        "latency_ms": 12.346,
    }
