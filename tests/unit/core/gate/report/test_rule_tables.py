"""Rules of every kind as tables, one after the other in the order of the report."""

from __future__ import annotations

from typing import Any

from airflow_mcp.core.gate.report.rule_tables import badge, render_rules
from airflow_mcp.core.gate.rules.rule_result import RuleResult
from airflow_mcp.core.gate.rules.verdicts import Verdict


def rule(text: str, **changes: Any) -> RuleResult:
    given: dict[str, Any] = {"metric": "f1", "verdict": Verdict.PASSED, "value": 0.9, "bound": 0.8, "reason": "why"}
    return RuleResult(rule=text, **(given | changes))


def floor(value: float, where: str, verdict: Verdict = Verdict.PASSED) -> RuleResult:
    return rule("f1 >= 0.8 by region", kind="slice_floor", slice=where, value=value, verdict=verdict)


def test_no_rules_no_section() -> None:
    assert render_rules([]) == ""


def test_a_verdict_is_a_word_and_a_sign_not_a_colour_alone() -> None:
    shown = {badge(verdict).split(">", 1)[1] for verdict in (*Verdict, None)}
    assert len(shown) == 5
    assert all(verdict.value in badge(verdict).split(">", 1)[1] for verdict in Verdict)
    assert "does not apply" in badge(None)


def test_slices_of_one_floor_share_a_scale_and_one_line_says_how_many_hold() -> None:
    html = render_rules([floor(0.9, "region=n"), floor(0.7, "region=s", Verdict.FAILED), floor(0.5, "sex=f")])
    assert "certain in 1 of 2 slices" in html
    assert "certain in 1 of 1 slices" in html
    assert html.count("On one scale") == 2
    first = html[html.index("region=n") : html.index("region=s")]
    assert first.count('cx="94.64%"') == 1


def test_the_worst_slice_is_the_verdict_of_the_floor() -> None:
    html = render_rules([floor(0.9, "region=n"), floor(0.7, "region=s", Verdict.INCONCLUSIVE)])
    caption = html[html.index("<p>f1") : html.index("<table")]
    assert "inconclusive" in caption


def test_an_improvement_is_drawn_with_zero_and_not_beside_the_champions_own_value() -> None:
    html = render_rules(
        [rule("f1 better than champion by >= 0.01", kind="significance", value=0.04, bound=0.01, champion_value=0.9)]
    )
    assert "smallest improvement that counts" in html
    assert 'stroke-dasharray="2 3"' in html
    assert "champion 0.9" not in html
    assert ">0.9<" in html


def test_a_rule_without_a_number_has_its_line_without_a_drawing() -> None:
    html = render_rules([rule("x >= 1", value=None, bound=None, verdict=Verdict.INCONCLUSIVE)])
    assert "<svg" not in html
    assert "inconclusive" in html


def test_a_champion_that_nobody_has_takes_no_column() -> None:
    assert "Champion" not in render_rules([rule("f1 >= 0.8")])
    assert "Champion" in render_rules([rule("f1 >= 0.8", champion_value=0.7), rule("f1 >= 0.7")])
