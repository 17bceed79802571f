from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mcp.work.measures.classes import Classes
from airflow_mcp.work.measures.feature_importance import REPEATS, measure_importance
from airflow_mcp.work.measures.scoring import ScoredModel

ROWS = 4000


class Model:
    """Stands for a loaded model: a function of the rows, and perhaps probabilities of two classes."""

    uri = "models:/m-1"

    def __init__(
        self, answer: Callable[[pd.DataFrame], Any], chance: Callable[[pd.DataFrame], Any] | None = None
    ) -> None:
        self.answer, self.chance = answer, chance
        self.classes = [0, 1] if chance else None
        self.asked: list[int] = []

    def predict(self, rows: pd.DataFrame) -> Any:
        self.asked.append(len(rows))
        return np.asarray(self.answer(rows))

    def probabilities(self, rows: pd.DataFrame) -> tuple[Any, str]:
        if self.chance is None:
            return None, "it has none"
        positive = np.asarray(self.chance(rows))
        return np.column_stack([1 - positive, positive]), ""


def rows() -> pd.DataFrame:
    random = np.random.default_rng(1)
    return pd.DataFrame(
        {"strong": random.normal(size=ROWS), "weak": random.normal(size=ROWS), "kind": ["a", "b"] * 2000}
    )


def scored(model: Model, inputs: Any, true: Any, *, is_regression: bool = False) -> ScoredModel:
    classes = None if is_regression else Classes((0, 1), 1)
    probabilities = model.probabilities(inputs)[0]
    return ScoredModel(model, inputs, np.asarray(true), np.asarray(true), classes, probabilities)  # type: ignore[arg-type]


def test_the_shares_of_a_sum_are_those_of_its_variance() -> None:
    data = rows()
    answer = lambda given: 2 * given["strong"] + given["weak"]  # noqa: E731
    found = measure_importance(scored(Model(answer), data, answer(data), is_regression=True), ROWS)
    assert found == pytest.approx({"strong": 0.8, "weak": 0.2, "kind": 0.0}, abs=0.03)
    assert sum(found.values()) == pytest.approx(1)
    assert found == measure_importance(scored(Model(answer), data, answer(data), is_regression=True), ROWS)


@pytest.mark.parametrize("with_probabilities", [False, True])
def test_a_classifier_is_asked_by_its_probabilities_or_by_its_errors(with_probabilities: bool) -> None:
    data = rows()
    of_kind = lambda given: (given["kind"] == "b").astype(int)  # noqa: E731
    doubtful = lambda given: 0.1 + 0.6 * of_kind(given) + 0.2 * (given["weak"] > 0)  # noqa: E731
    model = Model(of_kind, doubtful if with_probabilities else None)
    found = measure_importance(scored(model, data, of_kind(data)), ROWS)
    assert found["kind"] > 0.9
    assert (found["weak"] > 0, found["strong"]) == (False, 0)
    truth = (doubtful(data) > np.random.default_rng(2).random(ROWS)).astype(int)
    of_chance = measure_importance(scored(model, data, truth), ROWS)
    assert (of_chance["weak"] > 0) == with_probabilities, "errors do not show it, the log loss does"


def test_no_more_rows_than_asked_are_predicted_for_each_feature() -> None:
    model = Model(lambda given: given["weak"])
    data = rows()
    measure_importance(scored(model, data, data["weak"], is_regression=True), 50)
    assert model.asked == [50] * (1 + 3 * REPEATS)


def test_what_does_not_matter_is_0_and_an_array_has_no_names() -> None:
    data = rows()
    constant = Model(lambda given: np.ones(len(given)))
    found = measure_importance(scored(constant, data, data["weak"], is_regression=True), 100)
    assert found == {"strong": 0, "weak": 0, "kind": 0}
    array = data[["weak"]].to_numpy()
    assert measure_importance(scored(constant, array, data["weak"], is_regression=True), 100) == {}


def test_a_class_that_only_shuffled_values_bring_counts_as_wrong() -> None:
    data = pd.DataFrame({"a": [0, 1] * 50, "b": [1, 0] * 50})
    model = Model(lambda given: np.where(given["a"] == given["b"], 7, given["a"]))
    found = measure_importance(scored(model, data, data["a"]), 100)
    assert found == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.1)


def test_a_loss_too_large_for_a_double_has_no_shares() -> None:
    data = pd.DataFrame({"a": [1e200, -1e200] * 50})
    model = Model(lambda given: given["a"])
    assert measure_importance(scored(model, data, data["a"], is_regression=True), 100) == {}
