"""Scores next to those of Evidently itself, on data in full and on profiles."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airflow_mcp.core.drift.policy import METHODS, choose_method, has_drifted, methods_for
from airflow_mcp.core.drift.profile import ColumnType
from airflow_mcp.work.drift.category_counts import CategoryCounts
from airflow_mcp.work.drift.column_data import ColumnReader
from airflow_mcp.work.drift.distribution import (
    COARSEST,
    ROUNDING,
    Curve,
    curve_of_sorted,
    from_document,
    simplify,
    to_document,
)
from airflow_mcp.work.drift.statistics import NumberPair, Score, compare_counts, compare_numbers

Maker = Callable[[np.random.Generator, int], Any]
NUMBERS: dict[str, tuple[Maker, Maker]] = {
    "normal, shifted": (lambda r, n: r.normal(size=n), lambda r, n: r.normal(0.2, 1, n)),
    "normal, the same": (lambda r, n: r.normal(size=n), lambda r, n: r.normal(size=n)),
    "normal, wider": (lambda r, n: r.normal(size=n), lambda r, n: r.normal(0, 1.5, n)),
    "far from zero": (lambda r, n: r.normal(1e9, 1, n), lambda r, n: r.normal(1e9 + 0.3, 1, n)),
    "skewed": (lambda r, n: r.gamma(2, size=n), lambda r, n: r.gamma(2.2, size=n)),
    "heavy tails": (lambda r, n: r.standard_t(2, size=n), lambda r, n: r.standard_t(1.5, size=n)),
    "log-normal": (lambda r, n: r.lognormal(0, 2, n), lambda r, n: r.lognormal(0.3, 2, n)),
    "two peaks": (
        lambda r, n: np.where(r.random(n) < 0.5, r.normal(-4, 1, n), r.normal(4, 1, n)),
        lambda r, n: np.where(r.random(n) < 0.6, r.normal(-4, 1, n), r.normal(4, 1, n)),
    ),
    "mostly zero": (
        lambda r, n: np.where(r.random(n) < 0.7, 0.0, r.exponential(5, n)),
        lambda r, n: np.where(r.random(n) < 0.6, 0.0, r.exponential(5, n)),
    ),
    "rounded": (lambda r, n: r.normal(size=n).round(1), lambda r, n: r.normal(0.1, 1, n).round(1)),
    "whole numbers": (lambda r, n: r.poisson(30, n), lambda r, n: r.poisson(32, n)),
    "few whole numbers": (lambda r, n: r.integers(0, 15, n), lambda r, n: r.integers(0, 17, n)),
    "four values": (
        lambda r, n: r.choice([0.5, 1, 2, 4], n),
        lambda r, n: r.choice([0.5, 1, 2, 4], n, p=[0.3, 0.3, 0.2, 0.2]),
    ),
    "two values": (lambda r, n: r.integers(0, 2, n), lambda r, n: (r.random(n) < 0.55).astype(int)),
    "constant": (lambda r, n: np.full(n, 7.0), lambda r, n: np.full(n, 7.0)),
    "another constant": (lambda r, n: np.full(n, 7.0), lambda r, n: np.full(n, 8.0)),
    "constant, then not": (lambda r, n: np.full(n, 7.0), lambda r, n: r.normal(7, 1, n)),
    "not, then constant": (lambda r, n: r.normal(7, 1, n), lambda r, n: np.full(n, 7.0)),
    "tiny numbers": (lambda r, n: r.normal(0, 1e-9, n), lambda r, n: r.normal(1e-9, 1e-9, n)),
}
CATEGORIES: dict[str, tuple[Maker, Maker]] = {
    "five": (
        lambda r, n: r.choice(list("abcde"), n),
        lambda r, n: r.choice(list("abcde"), n, p=[0.3, 0.2, 0.2, 0.2, 0.1]),
    ),
    "two": (lambda r, n: r.choice(["yes", "no"], n), lambda r, n: r.choice(["yes", "no"], n, p=[0.6, 0.4])),
    "one": (lambda r, n: np.full(n, "a"), lambda r, n: np.full(n, "a")),
    "one, then another": (lambda r, n: np.full(n, "a"), lambda r, n: np.full(n, "b")),
    "new": (lambda r, n: r.choice(list("abc"), n), lambda r, n: r.choice(list("abcd"), n)),
    "gone": (lambda r, n: r.choice(list("abcd"), n), lambda r, n: r.choice(list("abc"), n)),
    "flags": (lambda r, n: r.random(n) < 0.5, lambda r, n: r.random(n) < 0.4),
    "many": (
        lambda r, n: r.zipf(1.5, n).clip(max=300).astype(str),
        lambda r, n: r.zipf(1.6, n).clip(max=300).astype(str),
    ),
}
SIZES = [(12, 9), (400, 350), (3000, 2048)]


def evidently(method: str, reference: Any, current: Any, kind: ColumnType) -> tuple[float, bool]:
    """Ask Evidently."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently.legacy.calculations.stattests.registry import get_stattest
        from evidently.legacy.core import ColumnType as TheirType

        series = (pd.Series(reference), pd.Series(current))
        test = get_stattest(*series, TheirType(kind[:3]), None if method == "auto" else method)
        with np.errstate(all="ignore"):
            result = test(*series, TheirType(kind[:3]), None)
    return float(result.drift_score), bool(result.drifted)


def their_choice(reference: Any, current: Any, kind: ColumnType) -> tuple[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently.legacy.calculations.stattests.registry import get_stattest
        from evidently.legacy.core import ColumnType as TheirType

        test = get_stattest(pd.Series(reference), pd.Series(current), TheirType(kind[:3]), None)
    return test.name, test.default_threshold


def curve(values: Any, lossless: float = math.inf) -> Curve:
    return curve_of_sorted(np.sort(np.asarray(values, dtype=float)), lossless=lossless)


def counts(values: Any) -> CategoryCounts:
    reader = ColumnReader("c", "feature", as_categories=True, is_exact=True)
    reader.add(pa.array(values))
    found = reader.finish().counts
    assert found is not None
    return found


def cases(makers: dict[str, tuple[Maker, Maker]], kind: ColumnType) -> Iterator[Any]:
    for name in makers:
        for size in SIZES:
            for method in methods_for(kind):
                if method != "TVD":
                    yield pytest.param(name, size, method, id=f"{name}-{size[0]}-{method}")


def data(makers: tuple[Maker, Maker], size: tuple[int, int], seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    return makers[0](random, size[0]), makers[1](random, size[1])


def is_whole(values: Any) -> bool:
    return np.asarray(values).dtype.kind == "i"


def score_of(method: str, reference: Any, current: Any) -> Score:
    pair = NumberPair(curve(reference), curve(current), is_integer=is_whole(reference) and is_whole(current))
    return compare_numbers(method, pair)


@pytest.mark.parametrize(("name", "size", "method"), list(cases(NUMBERS, "numerical")))
def test_numbers_in_full_have_evidentlys_score(name: str, size: tuple[int, int], method: str) -> None:
    reference, current = data(NUMBERS[name], size)
    theirs, drifted = evidently(method, reference, current, "numerical")
    ours = score_of(method, reference, current)
    assert ours.value == pytest.approx(theirs, rel=1e-9, abs=1e-6)
    assert ours.error == 0
    assert has_drifted(method, ours.value, METHODS[method].threshold) == drifted


@pytest.mark.parametrize(("name", "size", "method"), list(cases(CATEGORIES, "categorical")))
def test_categories_in_full_have_evidentlys_score(name: str, size: tuple[int, int], method: str) -> None:
    reference, current = data(CATEGORIES[name], size)
    ours = compare_counts(method, counts(reference), counts(current))
    if method == "z" and len({*reference.tolist(), *current.tolist()}) > 2:
        assert math.isnan(ours.value)
        return
    if method == "chisquare" and name == "one":
        # Evidently has no answer; of one category that stayed there is nothing to doubt.
        assert math.isnan(evidently(method, reference, current, "categorical")[0])
        assert ours.value == 1
        return
    theirs, drifted = evidently(method, reference, current, "categorical")
    assert ours.value == pytest.approx(theirs, rel=1e-9, abs=1e-6)
    assert has_drifted(method, ours.value, METHODS[method].threshold) == drifted


@pytest.mark.parametrize("size", [(900, 1100), (1000, 50), (1001, 50)])
@pytest.mark.parametrize(
    ("kind", "name"), [*[("numerical", n) for n in NUMBERS], *[("categorical", n) for n in CATEGORIES]]
)
def test_auto_chooses_as_evidently_does(kind: ColumnType, name: str, size: tuple[int, int]) -> None:
    reference, current = data((NUMBERS if kind == "numerical" else CATEGORIES)[name], size)
    distinct = len({*np.asarray(reference).tolist(), *np.asarray(current).tolist()})
    method = choose_method(kind, size[0], distinct)
    assert (method, METHODS[method].threshold) == their_choice(reference, current, kind)
    if kind == "numerical" and not (method == "chisquare" and distinct == 1):
        theirs, _ = evidently("auto", reference, current, kind)
        assert score_of(method, reference, current).value == pytest.approx(theirs, rel=1e-9, abs=1e-6)


def test_more_than_ten_thousand_rows_have_the_p_value_of_the_limit() -> None:
    reference, current = data(NUMBERS["normal, the same"], (12_000, 500))
    assert score_of("ks", reference, current).value == pytest.approx(
        evidently("ks", reference, current, "numerical")[0], abs=1e-9
    )


def test_single_precision_has_evidentlys_bins() -> None:
    reference, current = (values.astype(np.float32) for values in data(NUMBERS["skewed"], (3000, 2500)))
    pair = NumberPair(curve(reference), curve(current), is_single_precision=True)
    for method in ("jensenshannon", "psi"):
        theirs, _ = evidently(method, reference, current, "numerical")
        assert compare_numbers(method, pair).value == pytest.approx(theirs, abs=1e-6)


def test_the_permutation_test_of_total_variation_agrees_with_evidentlys() -> None:
    random = np.random.default_rng(3)
    for shares in ([0.5, 0.3, 0.2], [0.42, 0.33, 0.25]):
        reference, current = (
            random.choice(list("abc"), 150, p=[0.5, 0.3, 0.2]),
            random.choice(list("abc"), 150, p=shares),
        )
        theirs, _ = evidently("TVD", reference, current, "categorical")
        # Both draw 1000 permutations, so both have a standard error of 0.016 at most.
        assert compare_counts("TVD", counts(reference), counts(current)).value == pytest.approx(theirs, abs=0.07)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [(20_000, 15_000), (700, 450)])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_profile_scores_within_its_stated_error(name: str, size: tuple[int, int], seed: int) -> None:
    reference, current = data(NUMBERS[name], size, seed)
    whole = is_whole(reference) and is_whole(current)
    full = NumberPair(curve(reference), curve(current), is_integer=whole)
    kept = NumberPair(*(from_document(to_document(simplify(side, 28))) for side in full[:2]), is_integer=whole)
    for method in methods_for("numerical"):
        exact, found = compare_numbers(method, full), compare_numbers(method, kept)
        if found.error is not None:
            assert abs(found.value - exact.value) <= found.error + 1e-9, method
        limit = METHODS[method].threshold
        is_near = found.error is None or abs(exact.value - limit) <= found.error
        assert is_near or has_drifted(method, found.value, limit) == has_drifted(method, exact.value, limit), method


@pytest.mark.parametrize("rounding", [ROUNDING, COARSEST])
@pytest.mark.parametrize("knots", [2, 8, 24])
@pytest.mark.parametrize("shift", [3.0, 10.0, 12.0])
def test_distributions_that_hardly_overlap_score_within_the_stated_error(
    shift: float, knots: int, rounding: float
) -> None:
    # Bins that are empty on one side count with a replacement that depends on the least share of all bins.
    random = np.random.default_rng(2)
    full = NumberPair(curve(random.normal(size=20_000)), curve(random.normal(shift, 1, 20_000)))
    kept = NumberPair(
        *(
            from_document(to_document(simplify(side, knots, rounding=rounding)))
            for side in (full.reference, full.current)
        )
    )
    for method in ("psi", "wasserstein", "ks", "jensenshannon"):
        exact, found = compare_numbers(method, full), compare_numbers(method, kept)
        assert found.error is not None
        assert abs(found.value - exact.value) <= found.error + 1e-9, method


def test_few_values_that_a_profile_has_lost_have_no_bound() -> None:
    random = np.random.default_rng(0)
    full = NumberPair(curve(random.integers(0, 15, 900)), curve(random.integers(0, 15, 900)))
    kept = NumberPair(from_document(to_document(simplify(full.reference, 4))), full.current)
    assert full.reference.distinct == kept.reference.distinct == 15
    for method in ("psi", "jensenshannon", "chisquare"):
        assert compare_numbers(method, full).error == 0
        assert compare_numbers(method, kept).error is None


@pytest.mark.parametrize("method", methods_for("categorical"))
def test_the_order_in_which_categories_were_counted_does_not_matter(method: str) -> None:
    rows = {"a": 30, "b": 24, "c": 16, "d": 9}
    forth = CategoryCounts(counts=rows, rows=79, distinct=4)
    back = CategoryCounts(counts=dict(reversed(rows.items())), rows=79, distinct=4)
    other = CategoryCounts(counts={"d": 12, "a": 22, "b": 30, "c": 11}, rows=75, distinct=4)
    first, second = compare_counts(method, forth, other), compare_counts(method, back, other)
    assert first == second or (math.isnan(first.value) and method == "z")


def test_categories_of_which_none_was_kept_have_no_score() -> None:
    lost = CategoryCounts(counts={}, rows=100, error=20, distinct=40)
    for method in ("jensenshannon", "psi", "chisquare", "TVD"):
        assert math.isnan(compare_counts(method, lost, CategoryCounts(counts={"a": 100}, rows=100, distinct=1)).value)


@pytest.mark.parametrize("seed", range(4))
def test_the_error_of_a_profile_is_small_next_to_the_thresholds(seed: int) -> None:
    limits = {"wasserstein": 0.02, "jensenshannon": 0.04, "psi": 0.02}
    for name in ("normal, shifted", "skewed", "two peaks", "mostly zero", "rounded", "whole numbers"):
        reference, current = data(NUMBERS[name], (20_000, 15_000), seed)
        full = NumberPair(curve(reference), curve(current))
        kept = NumberPair(*(from_document(to_document(simplify(side, 28))) for side in full[:2]))
        for method, limit in limits.items():
            apart = abs(compare_numbers(method, kept).value - compare_numbers(method, full).value)
            assert apart < limit, (name, method)


@pytest.mark.parametrize("method", ["chisquare", "TVD", "jensenshannon", "psi"])
def test_few_values_that_became_too_many_to_keep_have_drifted(method: str) -> None:
    random = np.random.default_rng(0)
    pair = NumberPair(curve(random.integers(0, 4, 900)), curve(random.normal(2, 1, 5000), lossless=100))
    assert not pair.current.is_exact
    assert has_drifted(method, compare_numbers(method, pair).value, METHODS[method].threshold)


def test_categories_that_one_side_did_not_keep_are_counted_together() -> None:
    reference = CategoryCounts(counts={"a": 50, "b": 30}, rows=100, error=10, distinct=40)
    current = CategoryCounts(counts={"a": 60, "c": 40}, rows=100, distinct=2)
    found = compare_counts("jensenshannon", reference, current)
    assert found.error is not None
    assert found.error > 0.1
    both = compare_counts(
        "jensenshannon",
        CategoryCounts(counts={"a": 50, "b": 30, "(other)": 20}, rows=100, distinct=3),
        CategoryCounts(counts={"a": 60, "(other)": 40}, rows=100, distinct=2),
    )
    assert found.value == pytest.approx(both.value)
