from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from airflow_mcp.exceptions import DatasetError, InvalidArgumentError, RefusedError
from airflow_mcp.work.measures.classes import (
    AnsweredClasses,
    Classes,
    align_probabilities,
    find_classes,
    plain_label,
    require_classes,
)
from airflow_mcp.work.measures.metrics import classifier_metrics, regressor_metrics

BINARY = Classes(("no", "yes"), 1)


def found(labels: list[Any], predicted: list[Any], known: list[Any], positive: Any) -> Classes:
    models = [
        AnsweredClasses(f"m-{place}", *answers) for place, answers in enumerate(zip(predicted, known, strict=True))
    ]
    return find_classes(labels, models, positive)


def test_binary_metrics_match_numbers_counted_by_hand() -> None:
    # yes-yes 2, yes-no 1, no-yes 1, no-no 1
    true, predicted = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    positive = np.array([0.9, 0.8, 0.4, 0.6, 0.1])
    result = classifier_metrics(BINARY, true, predicted, np.column_stack([1 - positive, positive]), "")
    assert result.undefined == {}
    assert result.metrics["accuracy"] == 3 / 5
    assert result.metrics["precision"] == 2 / 3
    assert result.metrics["recall"] == 2 / 3
    assert result.metrics["f1"] == 2 / 3
    assert result.metrics["roc_auc"] == pytest.approx(5 / 6)  # of 6 pairs only (0.4, 0.6) is in the wrong order
    expected = -np.mean(np.log([0.9, 0.8, 0.4, 0.4, 0.9]))
    assert result.metrics["log_loss"] == pytest.approx(expected)


def test_the_positive_class_may_be_the_lesser_one() -> None:
    true, predicted = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1])
    result = classifier_metrics(Classes(("no", "yes"), 0), true, predicted, None, "none")
    assert (result.metrics["precision"], result.metrics["recall"]) == (1.0, 1 / 3)


def test_macro_metrics_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(1)
    true = generator.integers(0, 3, 300)
    raw = generator.random((300, 3)) + np.eye(3)[true]
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    result = classifier_metrics(Classes(("a", "b", "c"), None), true, predicted, probabilities, "")
    assert result.metrics == pytest.approx(
        {
            "accuracy": sk.accuracy_score(true, predicted),
            "precision": sk.precision_score(true, predicted, average="macro"),
            "recall": sk.recall_score(true, predicted, average="macro"),
            "f1": sk.f1_score(true, predicted, average="macro"),
            "roc_auc": sk.roc_auc_score(true, probabilities, multi_class="ovr", average="macro"),
            "log_loss": sk.log_loss(true, probabilities),
        }
    )


def test_precision_is_undefined_when_nothing_is_predicted_positive() -> None:
    result = classifier_metrics(BINARY, np.array([1, 0, 0]), np.array([0, 0, 0]), None, "no probabilities")
    assert "precision" not in result.metrics
    assert "for no row" in result.undefined["precision"]
    assert (result.metrics["recall"], result.metrics["f1"]) == (0, 0)
    assert result.undefined["roc_auc"] == result.undefined["log_loss"] == "no probabilities"


def test_one_class_in_the_labels_leaves_roc_auc_undefined_and_log_loss_defined() -> None:
    probabilities = np.array([[0.8, 0.2], [0.5, 0.5]])
    result = classifier_metrics(BINARY, np.array([0, 0]), np.array([0, 1]), probabilities, "")
    assert "roc_auc" not in result.metrics
    assert "'yes'" in result.undefined["roc_auc"]
    assert result.metrics["log_loss"] == pytest.approx(-(math.log(0.8) + math.log(0.5)) / 2)
    assert "recall" in result.undefined


def test_a_missing_class_leaves_the_macro_roc_auc_undefined() -> None:
    probabilities = np.full((4, 3), 1 / 3)
    result = classifier_metrics(Classes((0, 1, 2), None), np.array([0, 1, 0, 1]), np.zeros(4, int), probabilities, "")
    assert "roc_auc" not in result.metrics
    assert "2" in result.undefined["roc_auc"]


def test_with_one_known_class_only_accuracy_is_defined() -> None:
    result = classifier_metrics(Classes((0,), None), np.zeros(3, int), np.zeros(3, int), None, "")
    assert result.metrics == {"accuracy": 1.0}
    assert set(result.undefined) == {"precision", "recall", "f1", "roc_auc", "log_loss"}


def test_the_greater_of_two_classes_is_positive_by_default() -> None:
    assert found(["b", "a"], [["a"]], [None], None) == Classes(("a", "b"), 1)
    assert found([0, 1], [[0.0, 1.0]], [[0, 1]], None) == Classes((0, 1), 1)
    assert found([True, False], [[1, 0]], [None], None).positive == 1


def test_classes_that_only_a_model_knows_count() -> None:
    assert found([0, 0], [[0, 0]], [[0, 1]], None) == Classes((0, 1), 1)
    assert found([0, 1], [[0, 1], [1, 2]], [None, None], None) == Classes((0, 1, 2), None)


@pytest.mark.parametrize("positive", ["1", 2, "yes"])
def test_a_positive_label_that_is_no_class_is_refused(positive: object) -> None:
    with pytest.raises(InvalidArgumentError, match="must be one of the classes 0, 1; got"):
        found([0, 1], [[0, 1]], [None], positive)


def test_a_positive_label_among_three_classes_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="unless there are two classes; got 1 with 3 classes"):
        found([0, 1, 2], [[0]], [None], 1)


def test_predictions_that_share_no_class_with_the_labels_are_refused() -> None:
    with pytest.raises(RefusedError, match="no class in common"):
        found(["malignant", "benign"], [[0, 1]], [[0, 1]], None)


def test_predictions_that_are_none_of_the_models_own_classes_are_refused_by_name() -> None:
    with pytest.raises(RefusedError, match="model m-0 predicts 2, 3, but none of its own classes 0, 1"):
        found([0, 1], [[2, 3]], [[0, 1]], None)


@pytest.mark.parametrize(
    ("answers", "what"),
    [
        ([0.0, 1.0, 0.5], "fractions"),
        (np.array([0.0, np.nan]), "numbers that are not finite"),
        (np.array([1, np.inf]), "numbers that are not finite"),
        ([Decimal("0.5")], "fractions"),
        ([{"label": 1}], "values of type dict"),
        ([[1]], "values of type list"),
        (np.array(["2026-01-01"], "M8[ns]"), "values of type datetime64"),
        ([b"a"], "values of type bytes"),
        ([None], "values of type NoneType"),
    ],
)
def test_answers_that_cannot_be_classes_are_refused_by_name_whatever_the_labels(answers: Any, what: str) -> None:
    with pytest.raises(RefusedError, match=f"model m-0 answers with {what}, which cannot be classes"):
        require_classes(answers, "m-0")


@pytest.mark.parametrize("answers", [[0, 1.0, "a", True], np.array([0.0, 2.0]), np.array(["a"]), [Decimal("1.0")]])
def test_texts_whole_numbers_and_truths_are_classes(answers: Any) -> None:
    refusals = []
    try:
        require_classes(answers, "m-0")
    except RefusedError as error:
        refusals.append(str(error))
    assert refusals == []


def test_true_and_false_become_numbers_where_a_model_answers_numbers() -> None:
    classes = found([True, True], [[1, 0]], [None], None)
    assert [type(label) for label in classes.labels] == [int, int]
    assert classes.encode([True, 0, 7]).tolist() == [1, 0, -1]


def test_labels_of_mixed_types_are_refused() -> None:
    with pytest.raises(DatasetError, match="mix types"):
        found([1, "1"], [[1]], [None], None)


def test_probabilities_follow_the_order_of_the_evaluation() -> None:
    aligned = align_probabilities(np.array([[0.7, 0.3]]), ["c", "a"], Classes(("a", "b", "c"), None))
    assert aligned.tolist() == [[0.3, 0.0, 0.7]]


@pytest.mark.parametrize(
    ("value", "plain"), [(np.int64(3), 3), (2.0, 2), (np.float64(2.5), 2.5), ("a", "a"), (np.bool_(True), True)]
)
def test_labels_become_plain_values(value: object, plain: object) -> None:
    assert plain_label(value) == plain
    assert type(plain_label(value)) is type(plain)


def test_metrics_of_a_regressor_match_numbers_counted_by_hand() -> None:
    result = regressor_metrics(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 6.0]))
    assert result.metrics == pytest.approx({"mae": 1.0, "rmse": 3**0.5, "r2": 1 - 9 / 2})


def test_metrics_of_a_regressor_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(2)
    true = generator.normal(size=100)
    predicted = true + generator.normal(size=100)
    assert regressor_metrics(true, predicted).metrics == pytest.approx(
        {
            "mae": sk.mean_absolute_error(true, predicted),
            "rmse": sk.root_mean_squared_error(true, predicted),
            "r2": sk.r2_score(true, predicted),
        }
    )


@pytest.mark.parametrize("labels", [[2.0], [2.0, 2.0], [0.1, 0.1, 0.1]])
def test_r2_is_undefined_when_all_labels_are_equal(labels: list[float]) -> None:
    result = regressor_metrics(np.array(labels), np.zeros(len(labels)))
    assert result.undefined == {"r2": "all labels are equal"}
    assert set(result.metrics) == {"mae", "rmse"}


def test_a_number_too_large_is_undefined_instead_of_infinite() -> None:
    result = regressor_metrics(np.array([1e300, -1e300]), np.array([-1e300, 1e300]))
    assert "rmse" in result.undefined
    assert np.isfinite(list(result.metrics.values())).all()


@pytest.mark.parametrize(
    ("true", "predicted", "metrics"),
    [
        ([1e200, 2e200], [1e200, 2e200], {"mae": 0, "rmse": 0}),
        ([1e308, 1e308, -1e308], [1.0, 1, 1], {}),
        ([1e200, 1e200], [0.0, 0], {"mae": 1e200}),
    ],
)
def test_numbers_too_large_for_a_double_are_undefined_and_never_a_perfect_score(
    true: list[float], predicted: list[float], metrics: dict[str, float]
) -> None:
    result = regressor_metrics(np.array(true), np.array(predicted))
    assert result.metrics == pytest.approx(metrics)
    assert set(result.undefined) == {"mae", "rmse", "r2"} - set(metrics)
