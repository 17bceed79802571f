"""The report for people: complete, closed in itself, and safe with any name in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.evaluation.diagnostics import (
    Calibration,
    CalibrationBin,
    Confusion,
    ConfusionMatrix,
    Histogram,
    LatencyEvidence,
    PercentileInterval,
)
from airflow_mcp.core.evaluation.evidence import EvaluationEvidence, MetricInterval, ModelEvidence, SliceEvidence
from airflow_mcp.core.gate.judgement import GateReport, error_report, evaluate_gate
from airflow_mcp.core.gate.policy import GatePolicy
from airflow_mcp.core.gate.report.page import render_gate_report

HOSTILE = "<script>alert('x')</script>\"&<img src=http://evil.example/x onerror=alert(1)>"
VOID = {"meta", "br", "link", "img", "input", "hr"}
RULES = ("accuracy >= 0.92", "latency_ms <= 150", "f1 >= champion - 0.01", "r2 >= -1", "auc >= 0.5")


class Page(HTMLParser):
    """Checks that every element is closed in order; collects text, elements and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and data.strip():
            self.texts.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def evidence(name: str = "sex", *, champion: bool = True) -> EvaluationEvidence:
    metrics = {"accuracy": 0.93125, "latency_ms": 151.5, "f1": 0.8, "r2": -0.5}
    return EvaluationEvidence(
        identity="evaluation-1",
        run_id="c" * 32,
        model_type="classifier",
        target="label",
        dataset=DatasetPin(uri=f"data/{name}.csv", version="v7", hash="sha256:ab"),
        rows=114,
        candidate=ModelEvidence(
            model_uri=f"models:/{name}", metrics={**metrics, name: 1.0}, undefined={"auc": f"one class of {name}"}
        ),
        champion=ModelEvidence(model_uri="models:/churn/3", version="3", metrics={"f1": 0.75}) if champion else None,
        slices=(
            SliceEvidence(column=name, value=name, rows=41, candidate={"f1": 0.77, name: 1.0}, champion={"f1": 0.7}),
            SliceEvidence(column="sex", value="m", rows=73, candidate={"f1": 0.81}),
        ),
        created_at="2026-11-21T02:00:00+00:00",
        environment={"python": "3.11.2", name: name},
    )


def render(found: EvaluationEvidence, *rules: str, model_name: str = "churn") -> tuple[GateReport, str]:
    policy = GatePolicy.parse(rules or RULES)
    report = evaluate_gate(found, policy, model_name=model_name, created_at="2026-11-21T02:01:00+00:00")
    return report, render_gate_report(report, found)


def test_the_page_shows_every_number_and_every_reason() -> None:
    report, html = render(evidence())
    text = Page(html).text
    assert "Evaluation gate: churn" in text
    assert "failed" in text
    assert "114 rows · compared with champion version 3" in text
    for shown in (
        "0.93125",
        "0.92",
        "151.5",
        "150",
        "0.74",
        "+0.05",
        "-0.5",
        "0.77 / 0.7",
        "0.81 / \u2013",
        "41",
        "73",
    ):
        assert shown in text, shown
    for rule in report.rules:
        assert rule.rule in text
        assert rule.reason in text
    for shown in ("c" * 32, "sha256:ab", "v7", "models:/churn/3", "python 3.11.2", "undefined: one class of sex"):
        assert shown in text, shown


def test_rules_about_slices_and_significance_are_shown_with_the_slice_and_hostile_names_never_run() -> None:
    policy = GatePolicy.parse([], ["f1"], {"floors": ["f1 >= 0.7"], "max_gap": {"f1": 0.1}, "by": [HOSTILE]})
    found = evidence(HOSTILE)
    report = evaluate_gate(found, policy, model_name="churn", created_at="2026-11-21T02:01:00+00:00")
    page = Page(render_gate_report(report, found))
    assert not {"script", "img"} & set(page.elements)
    for rule in report.rules:
        assert rule.rule in page.text
        assert rule.slice in page.text
        assert rule.reason in page.text


def test_hostile_names_are_shown_and_never_run() -> None:
    _, html = render(evidence(HOSTILE), model_name=HOSTILE)
    page = Page(html)
    assert "script" not in page.elements
    assert "img" not in page.elements
    assert page.texts.count(f"Evaluation gate: {HOSTILE}") == 2
    assert f"{HOSTILE} = {HOSTILE}" in page.text
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_a_hostile_reason_of_unusable_evidence_is_only_text() -> None:
    html = render_gate_report(
        error_report(HOSTILE, run_id=HOSTILE, model_name="m", created_at=HOSTILE, policy=GatePolicy.parse(["f1 > 0"])),
        None,
    )
    page = Page(html)
    assert "script" not in page.elements
    assert page.text.count(HOSTILE) == 3


def test_the_page_asks_nobody_for_anything() -> None:
    for html in (render(evidence())[1], render(evidence(HOSTILE), model_name=HOSTILE)[1]):
        page = Page(html)
        assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"} & set(page.elements)
        assert not {"src", "href", "xlink:href", "action", "data", "srcset"} & {name for name, _ in page.attributes}
        style = re.search("<style>(.*)</style>", html, re.DOTALL)
        assert style is not None
        assert "url(" not in style[1]
        assert "@import" not in style[1]


def test_unusable_evidence_has_a_page_without_numbers() -> None:
    report = error_report(
        "there is no evidence",
        run_id="r" * 32,
        model_name="churn",
        created_at="now",
        policy=GatePolicy.parse(["f1 > 0"]),
    )
    text = Page(render_gate_report(report, None)).text
    assert "there is no evidence" in text
    assert "error" in text
    assert "nothing was compared" in text
    assert "first model" not in text
    assert "Rules" not in text
    assert "Metrics" not in text


def test_a_first_model_is_told_as_such() -> None:
    _, html = render(evidence(champion=False))
    text = Page(html).text
    assert "no champion (first model)" in text
    assert "does not apply: there is no champion yet" in text


def test_a_page_without_slices_has_no_empty_table() -> None:
    found = evidence().model_copy(update={"slices": ()})
    assert "Slices" not in Page(render(found)[1]).text


def test_a_narrow_miss_does_not_look_like_a_hit() -> None:
    found = evidence().model_copy(
        update={"candidate": ModelEvidence(model_uri="models:/m", metrics={"accuracy": 0.91999999})}
    )
    assert "0.91999999" in Page(render(found, "accuracy >= 0.92")[1]).texts


def test_a_threshold_is_drawn_with_the_interval_that_the_evaluation_measured() -> None:
    interval = MetricInterval(method="wilson", low=0.91, high=0.95, confidence=0.95, standard_error=0.01)
    measured = ModelEvidence(model_uri="models:/m", metrics={"accuracy": 0.93}, intervals={"accuracy": interval})
    report, html = render(evidence().model_copy(update={"candidate": measured}), "accuracy >= 0.92")
    assert 'aria-label="candidate 0.93, interval 0.91 to 0.95, bound 0.92"' in html
    assert report.rules[0].low is None


def test_a_percentile_whose_upper_end_is_not_known_says_so() -> None:
    html = render(diagnosed(), "latency_ms_p99 <= 9")[1]
    assert "interval 4 to unknown, bound 9" in html
    assert "4 to ?" in Page(html).text


def test_everything_that_was_measured_is_drawn_with_words_for_those_who_do_not_see_it() -> None:
    html = render(diagnosed(), "latency_ms_p99 <= 9")[1]
    page = Page(html)
    labels = [value or "" for name, value in page.attributes if name == "aria-label"]
    for said in ("Calibration. ECE 0.05", "Residuals: label minus prediction", "Latency of 200 single-row calls"):
        assert [label for label in labels if label.startswith(said)], said
    for shown in ("Confusions of the candidate", "limit: latency_ms_p99 <= 9", "3 above, up to 12"):
        assert shown in page.text, shown
    assert page.elements.count("svg") == sum(name == "role" and value == "img" for name, value in page.attributes) + (
        html.count('<svg width="16" height="12" aria-hidden="true">')
    )


def test_hostile_classes_are_only_text() -> None:
    page = Page(render(diagnosed(HOSTILE), "latency_ms_p99 <= 9")[1])
    assert not {"script", "img"} & set(page.elements)
    assert f"{HOSTILE} predicted as b: 1 rows, 25.0%" in [value for name, value in page.attributes if name == "title"]


def test_a_reason_that_names_very_many_rules_is_cut_and_every_rule_is_still_there() -> None:
    rules = [f"metric_{number} >= 1" for number in range(200)]
    report, html = render(evidence(), *rules)
    box = html[html.index('<div class="verdict"') : html.index("<h2>")]
    assert "every rule is below" in box
    assert len(box) < 1500 < len(report.reason)
    text = Page(html).text
    assert all(rule in text for rule in rules)


def diagnosed(name: str = "a") -> EvaluationEvidence:
    """Evidence with every kind of diagnostics."""
    found = Histogram(edges=(1.0, 2.0, 5.0), counts=(90, 107), above=3, minimum=1.0, maximum=12.0)
    measured = ModelEvidence(
        model_uri="models:/m",
        metrics={"latency_ms_p50": 2.0, "latency_ms_p99": 5.0},
        confusion=ConfusionMatrix(
            labels=(name, "b"), counts=((3, 1), (2, 4)), largest=(Confusion(true="b", predicted=name, rows=2),)
        ),
        calibration=Calibration(
            event="positive_class",
            bins=(
                CalibrationBin(low=0.0, high=0.5, rows=6, positives=1, mean_probability=0.2),
                CalibrationBin(low=0.5, high=1.0, rows=0, positives=0, mean_probability=None),
            ),
            ece=0.05,
            brier=0.1,
        ),
        residuals=found,
        latency=LatencyEvidence(
            calls=200,
            warmup=20,
            histogram=found,
            intervals={"latency_ms_p99": PercentileInterval(low=4.0, high=None)},
            confidence=0.95,
        ),
    )
    return evidence().model_copy(update={"candidate": measured})


def test_every_verdict_has_its_colour_in_the_style() -> None:
    for verdict in ("passed", "failed", "inconclusive", "error", "none"):
        assert len(re.findall(rf"--{verdict}: #", render(evidence())[1])) == 2, verdict


def test_self_reported_metrics_are_marked_above_everything_else() -> None:
    found = EvaluationEvidence(
        identity="evaluation-1",
        run_id="c" * 32,
        self_reported=True,
        rows=0,
        candidate=ModelEvidence(model_uri="models:/m-1", metrics={"accuracy": 0.99}),
        champion=None,
        created_at="2026-11-21T02:00:00+00:00",
    )
    page = render(found, "accuracy >= 0.9")[1]
    assert 0 < page.index("<strong>Self-reported.</strong>") < page.index("<h2>Rules</h2>")
    assert "Metrics of the training script" in page
    assert "on the same rows" not in page
    assert "Self-reported" not in render(evidence())[1]
