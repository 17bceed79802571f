"""Logs as the model server writes them, judged by labels that arrive later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.profile import write_profile
from airflow_mcp.core.quality.page import render_quality_report
from airflow_mcp.core.quality.policy import QualityLimit, QualityPolicy, TrafficLimits
from airflow_mcp.core.quality.summary import Baseline, QualityRequest, QualitySummary
from airflow_mcp.core.serving.prediction_log import Event, events_of
from airflow_mcp.exceptions import DatasetError, RefusedError
from airflow_mcp.work.drift.profiles import profile_dataset
from airflow_mcp.work.quality.performance_estimate import estimate_metrics
from airflow_mcp.work.steps.quality import judge_quality
from tests.support.prediction_log import Logged, write_events, write_log

DAY = datetime(2026, 11, 20, tzinfo=UTC)
AS_OF = DAY + timedelta(days=1, hours=1)
LIMITS = (QualityLimit(metric="accuracy", minimum=0.8),)


def at(second: float, day: int = 0) -> float:
    return (DAY + timedelta(days=day, seconds=second)).timestamp()


def answers(count: int, right: float = 0.9, *, day: int = 0, **fields: Any) -> tuple[list[Logged], list[Any]]:
    """Return requests of one day, and their true classes, of which a share is answered rightly."""
    true = [number % 2 for number in range(count)]
    wrong = round(count * (1 - right))
    given = [1 - label if number < wrong else label for number, label in enumerate(true)]
    logged = [Logged(f"d{day}-{n}", at(n % 86_400, day), value, **fields) for n, value in enumerate(given)]
    return logged, true


def write_labels(folder: Path, rows: Sequence[dict[str, Any]], name: str = "labels.parquet") -> str:
    path = folder / name
    frame = pd.DataFrame(rows)
    frame.to_csv(path, index=False) if name.endswith(".csv") else frame.to_parquet(path, index=False)
    return str(path)


def labels_of(logged: Sequence[Logged], true: Sequence[Any], known: float | None = None) -> list[dict[str, Any]]:
    rows = [{"request_id": each.request_id, "label": label} for each, label in zip(logged, true, strict=True)]
    return rows if known is None else [{**row, "known": datetime.fromtimestamp(known, UTC)} for row in rows]


def judge(log: str, labels: str, policy: dict[str, Any] | None = None, **fields: Any) -> QualitySummary:
    asked = QualityPolicy(**{"limits": LIMITS, "windows": 1, **(policy or {})})
    request: dict[str, Any] = {
        "requests": log,
        "labels": (DatasetPin(uri=labels),),
        "model_type": "classifier",
        "as_of": AS_OF,
        "policy": asked,
        **fields,
    }
    return judge_quality(QualityRequest(**request))


class TestAWindow:
    @pytest.mark.parametrize(("right", "verdict"), [(0.9, "not_degraded"), (0.6, "degraded"), (0.8, "inconclusive")])
    def test_is_judged_by_the_labels_of_its_predictions(self, tmp_path: Path, right: float, verdict: str) -> None:
        logged, true = answers(400, right)
        found = judge(write_log(tmp_path, logged), write_labels(tmp_path, labels_of(logged, true)))
        (window,) = found.windows
        assert (found.verdict, window.verdict) == (verdict, verdict)
        assert (window.rows, window.labelled, window.versions) == (400, 400, {"1": 400})
        assert window.metrics["accuracy"] == pytest.approx(right)
        predicted = [each.prediction for each in logged]
        assert window.metrics["recall"] == pytest.approx(sk.recall_score(true, predicted))
        assert window.intervals["accuracy"].low < right < window.intervals["accuracy"].high

    def test_waits_for_its_labels_and_is_judged_again_under_the_same_name_when_they_are_in(
        self, tmp_path: Path
    ) -> None:
        logged, true = answers(200)
        log = write_log(tmp_path, logged)
        half = write_labels(tmp_path, labels_of(logged[:100], true[:100]))
        delay = {"label_delay": timedelta(days=2)}
        early = judge(log, half, delay)
        waiting = early.windows[-1]
        assert (waiting.verdict, waiting.is_due, waiting.labelled) == (None, False, 100)
        assert "waits for labels until 2026-11-23 00:00" in waiting.reason
        assert early.verdict == "inconclusive"  # the window that is due has no prediction at all

        due = judge(log, half, delay, as_of=AS_OF + timedelta(days=2))
        assert (due.verdict, due.windows[0].name) == ("inconclusive", waiting.name)
        assert "50.0% of 200 predictions are labelled" in due.reason

        late = judge(log, write_labels(tmp_path, labels_of(logged, true)), delay, as_of=AS_OF + timedelta(days=2))
        assert (late.verdict, late.windows[0].name) == ("not_degraded", waiting.name)

    def test_has_the_requests_that_arrived_in_it(self, tmp_path: Path) -> None:
        today, true = answers(150)
        before, _ = answers(10, day=-1)
        after, _ = answers(10, day=1)
        edge = [Logged("first", at(0), 1), Logged("last", at(86_399.999), 1), Logged("next", at(86_400), 1)]
        write_log(tmp_path, [*before, *today, *edge, *after])
        log = write_log(tmp_path, [Logged(f"s{n}", at(n), 0, role="shadow") for n in range(30)])
        found = judge(log, write_labels(tmp_path, labels_of(today, true)))
        assert found.windows[0].rows == 152

    def test_of_labels_that_arrive_for_one_answer_first_is_inconclusive(self, tmp_path: Path) -> None:
        logged, true = answers(1000)
        arrived = [
            (each, label)
            for n, (each, label) in enumerate(zip(logged, true, strict=True))
            if each.prediction == 1 or n % 10 < 6
        ]
        rows = labels_of([each for each, _ in arrived], [label for _, label in arrived])
        found = judge(write_log(tmp_path, logged), write_labels(tmp_path, rows), {"min_labelled": 0.5})
        (window,) = found.windows
        (groups,) = window.label_groups
        assert (found.verdict, groups.column, groups.is_biased) == ("inconclusive", "prediction", True)
        assert "labels are biased" in found.reason
        assert window.metrics["accuracy"] > 0.8  # the number alone would have passed

    def test_of_labels_that_are_missing_at_random_is_judged(self, tmp_path: Path) -> None:
        logged, true = answers(1000)
        kept = np.random.default_rng(7).random(1000) < 0.85
        rows = [row for row, keep in zip(labels_of(logged, true), kept, strict=True) if keep]
        found = judge(write_log(tmp_path, logged), write_labels(tmp_path, rows))
        assert (found.verdict, found.windows[0].label_groups[0].is_biased) == ("not_degraded", False)

    def test_of_labels_that_arrive_for_one_segment_first_is_inconclusive(self, tmp_path: Path) -> None:
        logged, true = answers(600)
        logged = [
            Logged(each.request_id, each.at, each.prediction, row=(1.0, "AT" if n < 200 else "DE"))
            for n, each in enumerate(logged)
        ]
        rows = labels_of(logged[100:], true[100:])
        found = judge(write_log(tmp_path, logged), write_labels(tmp_path, rows), segments=("country",))
        biased = {each.column for each in found.windows[0].label_groups if each.is_biased}
        assert (found.verdict, biased) == ("inconclusive", {"country"})
        assert {part.value: part.rows for part in found.windows[0].slices} == {"AT": 100, "DE": 400}

    def test_of_numbers_has_the_metrics_of_numbers(self, tmp_path: Path) -> None:
        true = [float(n % 50) for n in range(300)]
        logged = [Logged(f"r{n}", at(n), value + (1 if n % 2 else -1)) for n, value in enumerate(true)]
        found = judge(
            write_log(tmp_path, logged),
            write_labels(tmp_path, labels_of(logged, true)),
            {"limits": (QualityLimit(metric="mae", largest_loss=0.5),)},
            model_type="regressor",
            baseline=Baseline(version="1", metrics={"mae": 0.8}),
        )
        assert (found.verdict, found.windows[0].metrics["mae"]) == ("not_degraded", pytest.approx(1.0))
        assert not found.estimate.is_allowed

    def test_of_infinite_answers_without_labels_is_judged_by_the_others(self, tmp_path: Path) -> None:
        logged = [Logged(f"r{n}", at(n), float("inf") if n >= 180 else float(n)) for n in range(200)]
        labels = write_labels(tmp_path, labels_of(logged[:180], [float(n) for n in range(180)]))
        limits = {"limits": (QualityLimit(metric="mae", maximum=1),), "largest_label_gap": 1.0}
        found = judge(write_log(tmp_path, logged), labels, limits, model_type="regressor")
        assert (found.verdict, found.windows[0].labelled) == ("not_degraded", 180)


class TestALabel:
    def test_that_is_newest_counts_and_one_known_later_does_not(self, tmp_path: Path) -> None:
        logged, true = answers(200)
        wrong = [1 - label for label in true]
        rows = [
            *labels_of(logged, wrong, at(90_000)),
            *labels_of(logged, true, at(90_100)),
            *labels_of(logged, wrong, at(900_000)),
            {"request_id": "d0-1", "label": None, "known": DAY},
        ]
        found = judge(
            write_log(tmp_path, logged),
            write_labels(tmp_path, rows),
            label_time_column="known",
            as_of=AS_OF + timedelta(hours=2),
        )
        assert found.verdict == "not_degraded"
        assert (found.join.labels, found.join.empty, found.join.later) == (601, 1, 200)

    def test_that_contradicts_another_without_a_time_is_no_label(self, tmp_path: Path) -> None:
        logged, true = answers(200)
        rows = [*labels_of(logged, true), *labels_of(logged[:60], [1 - label for label in true[:60]])]
        found = judge(write_log(tmp_path, logged), write_labels(tmp_path, rows))
        assert (found.join.conflicting, found.windows[0].labelled, found.verdict) == (60, 140, "inconclusive")

    def test_joins_text_ids_of_csv_and_counts_a_request_that_is_logged_twice_once(self, tmp_path: Path) -> None:
        logged = [Logged(f"00{n}", at(n), n % 2) for n in range(200)]
        write_log(tmp_path, logged)
        log = write_log(tmp_path, logged[:50])
        labels = write_labels(tmp_path, labels_of(logged, [n % 2 for n in range(200)]), "labels.csv")
        found = judge(log, labels)
        assert (found.join.predictions, found.join.repeated) == (200, 50)
        assert (found.windows[0].labelled, found.verdict) == (200, "not_degraded")

    def test_of_a_request_with_several_rows_must_say_which(self, tmp_path: Path) -> None:
        logged = [Logged(f"r{n}", at(n), [0, 1]) for n in range(120)]
        log = write_log(tmp_path, logged)
        vague = judge(log, write_labels(tmp_path, [{"request_id": f"r{n}", "label": 0} for n in range(120)]))
        assert (vague.windows[0].labelled, vague.join.ambiguous) == (0, 240)
        rows = [{"request_id": f"r{n}", "row": row, "label": row} for n in range(120) for row in (0, 1)]
        exact = judge(log, write_labels(tmp_path, rows))
        assert (exact.windows[0].labelled, exact.windows[0].metrics["accuracy"]) == (240, 1.0)

    def test_of_an_entity_belongs_to_the_predictions_before_it(self, tmp_path: Path) -> None:
        columns = [("amount", "double"), ("customer", "long")]
        logged = [Logged(f"r{n}", at(n), n % 2, row=(1.0, n % 100)) for n in range(200)]
        rows = [
            {"customer": customer, "label": label, "known": datetime.fromtimestamp(at(second), UTC)}
            for customer in range(100)
            for second, label in ((-50, 7), (customer + 50, customer % 2), (80_000, customer % 2), (85_000, 7))
        ]
        found = judge(
            write_log(tmp_path, logged, columns=columns),
            write_labels(tmp_path, rows),
            keys=("customer",),
            label_time_column="known",
        )
        assert (found.windows[0].labelled, found.windows[0].metrics["accuracy"]) == (200, 1.0)

    def test_of_an_entity_is_none_before_the_first_one_and_for_predictions_without_a_key(self, tmp_path: Path) -> None:
        log = write_log(tmp_path, [Logged(f"r{n}", at(n), n % 2, row=(1.0, None)) for n in range(200)])
        (tmp_path / "empty.csv").write_text("country,label,known\n")
        by_country = {"keys": ("country",), "label_time_column": "known"}
        first = judge(log, str(tmp_path / "empty.csv"), **by_country)
        assert (first.verdict, first.windows[0].rows, first.windows[0].labelled) == ("inconclusive", 200, 0)
        rows = [{"country": name, "label": 1, "known": DAY + timedelta(hours=12)} for name in ("None", "nan", "")]
        named = judge(log, write_labels(tmp_path, rows), **by_country)
        assert (named.windows[0].labelled, named.join.empty) == (0, 1)

    def test_of_an_entity_needs_no_request_ids(self, tmp_path: Path) -> None:
        logged = [Logged(f"r{n}", at(n), n % 2) for n in range(200)]
        frame = pd.read_parquet(write_log(tmp_path, logged))
        frame["request_id"] = None
        frame.to_parquet(tmp_path / "log.parquet", index=False)
        labels = [{"country": "DE", "label": 1, "known": DAY + timedelta(hours=12)}]
        by_country = {"keys": ("country",), "label_time_column": "known"}
        found = judge(str(tmp_path / "log.parquet"), write_labels(tmp_path, labels), **by_country)
        assert (found.windows[0].labelled, found.join.repeated, found.traffic.requests) == (200, 0, 200)

    def test_of_one_class_only_may_come_before_any_answer_of_it(self, tmp_path: Path) -> None:
        logged = [Logged(f"r{n}", at(n), 0) for n in range(200)]
        log = write_log(tmp_path, logged)
        found = judge(log, write_labels(tmp_path, labels_of(logged[:10], [1] * 10)))
        assert (found.verdict, found.windows[0].labelled, found.windows[0].metrics["accuracy"]) == (
            "inconclusive",
            10,
            0.0,
        )
        with pytest.raises(RefusedError, match="no class in common"):
            judge(log, write_labels(tmp_path, labels_of(logged[:10], ["1"] * 10)))

    def test_needs_its_columns(self, tmp_path: Path) -> None:
        logged, _ = answers(10)
        log = write_log(tmp_path, logged)
        with pytest.raises(DatasetError, match="the labels have no column 'label'; they have 'request_id', 'y'"):
            judge(log, write_labels(tmp_path, [{"request_id": "a", "y": 1}]))
        with pytest.raises(DatasetError, match="which cannot be classes"):
            judge(log, write_labels(tmp_path, [{"request_id": "d0-1", "label": 0.5}]))
        no_log = write_labels(tmp_path, [{"a": 1}], "other.parquet")
        with pytest.raises(DatasetError, match="must be a prediction log of the model server"):
            judge(no_log, write_labels(tmp_path, [{"request_id": "a", "label": 1}]))


def calibrated(count: int, seed: int = 3) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return probabilities that are calibrated by construction, and what happened."""
    draw = np.random.default_rng(seed)
    probabilities = draw.beta(0.7, 1.3, count)
    return probabilities, draw.random(count) < probabilities


class TestAnEstimate:
    def test_is_near_what_labels_show_later(self) -> None:
        probabilities, true = calibrated(40_000)
        predicted = probabilities > 0.5
        found = estimate_metrics(probabilities, predicted)
        assert found == {
            "accuracy": pytest.approx(sk.accuracy_score(true, predicted), abs=0.01),
            "precision": pytest.approx(sk.precision_score(true, predicted), abs=0.01),
            "recall": pytest.approx(sk.recall_score(true, predicted), abs=0.01),
            "f1": pytest.approx(sk.f1_score(true, predicted), abs=0.01),
            "roc_auc": pytest.approx(sk.roc_auc_score(true, probabilities), abs=0.01),
        }

    def test_of_ties_and_of_certain_answers(self) -> None:
        half = estimate_metrics(np.full(10, 0.5), np.ones(10, dtype=bool))
        assert half == {"accuracy": 0.5, "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "roc_auc": 0.5}
        certain = estimate_metrics(np.zeros(4), np.zeros(4, dtype=bool))
        assert certain == {"accuracy": 1.0}
        assert estimate_metrics(np.zeros(0), np.zeros(0, dtype=bool)) == {}

    @pytest.mark.parametrize("kind", ["positive", "predicted"])
    def test_is_made_for_a_window_without_any_label_and_never_lets_it_pass(self, tmp_path: Path, kind: str) -> None:
        probabilities, _ = calibrated(500)
        predicted = probabilities > 0.5
        of = probabilities if kind == "positive" else np.where(predicted, probabilities, 1 - probabilities)
        logged = [
            Logged(f"r{n}", at(n), {"prediction": int(answer), "probability": float(share)})
            for n, (answer, share) in enumerate(zip(predicted, of, strict=True))
        ]
        labels = write_labels(tmp_path, [{"request_id": "nobody", "label": 1}])
        log = write_log(tmp_path, logged)
        found = judge(log, labels, probability=kind, baseline=Baseline(version="1", calibration_error=0.01))
        (window,) = found.windows
        assert (found.verdict, window.metrics) == ("inconclusive", {})
        assert window.estimated == pytest.approx(estimate_metrics(probabilities, predicted))
        page = render_quality_report(found)
        assert "estimated, not measured" in page
        refused = judge(log, labels, probability=kind, baseline=Baseline(version="1", calibration_error=0.3))
        assert (refused.windows[0].estimated, refused.estimate.is_allowed) == ({}, False)
        assert "Nothing was estimated: the probabilities of version 1 are not calibrated" in render_quality_report(
            refused
        )


class TestTraffic:
    def test_is_counted_in_short_windows_and_never_decides(self, tmp_path: Path) -> None:
        logged, true = answers(300)
        slow = [Logged(f"slow{n}", at(43_200 + n), 1, seconds=0.3) for n in range(20)]
        limits = TrafficLimits(window=timedelta(minutes=1), largest_p95=0.25)
        log = write_log(tmp_path, [*logged, *slow])
        found = judge(log, write_labels(tmp_path, labels_of([*logged, *slow], [*true, *[1] * 20])), {"traffic": limits})
        traffic = found.traffic
        assert (found.verdict, traffic.requests, traffic.windows, traffic.exceeded) == ("not_degraded", 320, 6, 1)
        worst = traffic.worst[0]
        assert (worst.start, worst.requests, worst.p95, worst.exceeded) == (DAY + timedelta(hours=12), 20, 0.5, True)
        assert [each.p95 for each in traffic.worst[1:]] == [0.002] * 5

    def test_windows_have_the_requests_that_failed_whatever_the_order_of_the_log(self, tmp_path: Path) -> None:
        logged, true = answers(300)
        failed = [Event(f"f{n}", at(n), "1", "champion", 500, "model_failed", 0.3) for n in range(30)]
        failed += [Event(f"n{n}", at(43_200 + n), "", "", 503, "not_ready", 0.001) for n in range(3)]
        refused = [Event(f"u{n}", at(n), "1", "champion", 400, "invalid_rows", 0.001) for n in range(5)]
        others = [Event("c", at(1), "2", "canary", 500, "model_failed", 0.1)]
        unlogged = [Event("csv", at(86_000), "1", "champion", 200, "", 0.002)]
        late = [Event("l", at(0, day=1), "1", "champion", 500, "timeout", 1.0)]
        events = [*failed, *refused, *others, *unlogged, *late]
        limits = TrafficLimits(window=timedelta(minutes=5), largest_error_share=0.08)
        labels = write_labels(tmp_path, labels_of(logged, true))
        found = []
        for seed in range(3):
            folder = tmp_path / str(seed)
            log = write_log(folder, logged)
            order = np.random.default_rng(seed).permutation(len(events))
            write_events(folder, [events[place] for place in order])
            found.append(judge(log, labels, {"traffic": limits}))
        traffic = found[0].traffic
        assert [each.traffic for each in found] == [traffic] * 3
        assert (found[0].verdict, traffic.note) == ("not_degraded", "")
        assert (traffic.requests, traffic.failed, traffic.refused, traffic.windows, traffic.exceeded) == (
            334,
            33,
            5,
            3,
            2,
        )
        assert traffic.errors == {"model_failed": 30, "invalid_rows": 5, "not_ready": 3}
        assert [(each.requests, each.failed, each.exceeded) for each in traffic.worst] == [
            (3, 3, True),
            (330, 30, True),
            (1, 0, False),
        ]
        assert "model_failed: 30" in render_quality_report(found[0])

    def test_a_log_without_events_says_so(self, tmp_path: Path) -> None:
        logged, true = answers(200)
        found = judge(write_log(tmp_path, logged), write_labels(tmp_path, labels_of(logged, true)))
        assert (found.traffic.failed, found.traffic.errors) == (0, {})
        assert "neither events nor a column error" in found.traffic.note

    def test_a_log_whose_events_have_gone_or_are_empty_has_none(self, tmp_path: Path) -> None:
        logged, true = answers(200)
        log, labels = write_log(tmp_path, logged), write_labels(tmp_path, labels_of(logged, true))
        events = Path(events_of(log))
        events.mkdir()
        gone = judge(log, labels)
        assert (gone.traffic.requests, "neither events nor a column error" in gone.traffic.note) == (200, True)
        names = ("requested_at", "role", "status", "error", "latency_ms")
        pd.DataFrame({name: [] for name in names}).to_parquet(events / "none.parquet", index=False)
        empty = judge(log, labels)
        assert (empty.traffic.requests, empty.traffic.failed, empty.traffic.note) == (200, 0, "")

    def test_rows_unlike_the_training_data_are_counted(self, tmp_path: Path) -> None:
        train = tmp_path / "train.csv"
        train.write_text("amount,country\n" + "".join(f"{n},{'DE' if n % 2 else 'AT'}\n" for n in range(100)))
        profile = tmp_path / "profile.json"
        profile.write_text(write_profile(profile_dataset([DatasetPin(uri=str(train))])))
        logged, true = answers(200)
        strange = [Logged("a", at(1), 1, row=(1000.0, "DE")), Logged("b", at(2), 1, row=(5.0, "FR"))]
        log = write_log(tmp_path, [*logged, *strange])
        found = judge(
            log,
            write_labels(tmp_path, labels_of(logged, true)),
            baseline=Baseline(version="1", profile=str(profile)),
        )
        assert found.windows[0].outlier_rows == 2
        assert "2 rows are unlike the training data" in render_quality_report(found)


def test_the_report_names_windows_limits_and_what_was_left_out(tmp_path: Path) -> None:
    logged, true = answers(200, 0.6)
    found = judge(write_log(tmp_path, logged), write_labels(tmp_path, labels_of(logged, true)), model_name="<fraud>")
    page = render_quality_report(found)
    assert "Quality check: &lt;fraud&gt;" in page
    for text in ("degraded", "2026-11-20 00:00", "accuracy is 0.6", "0 repeated", "Latency and errors", "broken"):
        assert text in page
    assert "<script" not in page
    assert json.loads(found.model_dump_json())["verdict"] == "degraded"
