"""How verdicts combine."""

from __future__ import annotations

import itertools

import pytest

from airflow_mcp.core.gate.rules.verdicts import Verdict, combine

BEST_FIRST = [Verdict.PASSED, Verdict.INCONCLUSIVE, Verdict.FAILED, Verdict.ERROR]


@pytest.mark.parametrize(
    "verdicts", [chosen for size in (1, 2, 3, 4) for chosen in itertools.product(Verdict, repeat=size)]
)
def test_the_worst_verdict_wins_in_every_order(verdicts: tuple[Verdict, ...]) -> None:
    assert combine(verdicts) is max(verdicts, key=BEST_FIRST.index)


def test_nothing_measured_is_inconclusive_and_not_a_pass() -> None:
    assert combine([]) is Verdict.INCONCLUSIVE
    assert combine(iter(())) is Verdict.INCONCLUSIVE


def test_verdicts_are_written_as_one_lower_case_word() -> None:
    assert [str(verdict) for verdict in Verdict] == ["passed", "failed", "inconclusive", "error"]
