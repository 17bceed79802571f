"""The report of a rollout, of a simulation that runs to its end."""

from __future__ import annotations

from datetime import timedelta
from html.parser import HTMLParser

from airflow_mcp.core.document import dump_document, parse_document
from airflow_mcp.core.rollout.advance import Abort, analysis_of
from airflow_mcp.core.rollout.report import RolloutReport, render_report, report_of
from airflow_mcp.core.rollout.state import with_event
from tests.unit.core.rollout.test_advance import BEGIN, Simulation


def report(reason: str = "") -> RolloutReport:
    world = Simulation()
    world.run_to_weight(10)
    world.run(longest=timedelta(minutes=4))
    for replica in world.replicas:
        replica.canary_errors = 0.3
    action = world.run()
    assert isinstance(action, Abort)
    assert world.document is not None
    journal = with_event(world.journal, world.document, world.now)
    analysis = analysis_of(journal, world.document)
    return report_of(
        journal, analysis, succeeded=False, cause=action.cause, reason=reason or action.reason, now=world.now
    )


class _Paths(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.paths += [named.get("d") or ""] if tag == "path" else []
        self.scripts += tag in ("script", "link", "img")


def test_the_document_can_be_read_again() -> None:
    made = report()
    assert parse_document(RolloutReport, dump_document(made), "the report") == made
    assert made.analysis.verdict == "failed"
    assert made.counts.canary.failed > 0
    assert (made.started, made.cause) == (BEGIN, "analysis")


def test_the_page_shows_weight_and_rates_over_time() -> None:
    page = _Paths()
    page.feed(render_report(report()))
    weight, canary, champion = page.paths
    assert weight.startswith("M")
    heights = [float(place.split(" ")[1]) for place in canary.replace("M", "|").replace("L", "|").split("|")[1:]]
    assert heights[-1] < heights[0]  # the errors of the canary rise, and the top of a picture is 0
    assert len(set(champion.replace("M", "|").replace("L", "|").split("|")[1:])) > 2
    assert page.scripts == 0


def test_text_from_outside_is_escaped() -> None:
    html = render_report(report('<script>alert("x")</script>'))
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_rollout_without_looks_has_a_report_too() -> None:
    world = Simulation()
    assert world.document is not None
    analysis = analysis_of(world.journal, world.document)
    made = report_of(world.journal, analysis, succeeded=False, cause="timeout", reason="nobody came", now=BEGIN)
    assert "fewer than two looks" in render_report(made)
