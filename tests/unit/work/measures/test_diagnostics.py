"""Diagnostics next to scikit-learn's and numpy's own numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from airflow_mcp.core.document import dump_document
from airflow_mcp.core.evaluation.diagnostics import CALIBRATION_BINS, MAX_CLASSES, MAX_CONFUSIONS
from airflow_mcp.work.measures.classes import Classes
from airflow_mcp.work.measures.diagnostics import OTHER, calibrate, confusion_matrix, diagnose, histogram
from airflow_mcp.work.measures.scoring import ScoredModel

RANDOM = np.random.default_rng(3)
BINARY = Classes(("no", "yes"), 1)
NOBODY: Any = None


def classifier(classes: int, rows: int = 500) -> tuple[Classes, Any, Any, Any]:
    """Make a classifier's answers that are right more often than not."""
    true = RANDOM.integers(0, classes, rows)
    raw = RANDOM.random((rows, classes)) + 0.7 * np.eye(classes)[true]
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    return Classes(tuple(range(classes)), 1 if classes == 2 else None), true, probabilities.argmax(1), probabilities


@pytest.mark.parametrize("count", [2, 3, MAX_CLASSES])
def test_the_confusion_matrix_is_scikit_learns(count: int) -> None:
    classes, true, predicted, _ = classifier(count)
    found = confusion_matrix(classes, true, predicted)
    assert np.array_equal(found.counts, sk.confusion_matrix(true, predicted, labels=range(count)))
    assert found.labels == tuple(map(str, range(count)))
    assert found.folded == 0


def test_the_largest_confusions_are_named_first() -> None:
    true, predicted = np.array([0, 0, 1, 1, 1, 2, 2]), np.array([1, 1, 0, 0, 0, 2, 1])
    found = confusion_matrix(Classes(("a", "b", "c"), None), true, predicted)
    assert [(item.true, item.predicted, item.rows) for item in found.largest] == [
        ("b", "a", 3),
        ("a", "b", 2),
        ("c", "b", 1),
    ]


def test_of_many_classes_the_smallest_share_a_line_and_no_row_is_lost() -> None:
    labels = tuple(f"class {number}" for number in range(1000))
    true = np.concatenate([np.repeat(np.arange(19), 100), np.arange(1000)])
    predicted = np.roll(true, 7)
    found = confusion_matrix(Classes(labels, None), true, predicted)
    assert found.labels == (*labels[:19], OTHER)
    assert found.folded == 981
    assert len(found.largest) == MAX_CONFUSIONS
    assert np.sum(found.counts) == len(true)
    assert sum(found.counts[0]) == int((true == 0).sum())
    assert found.counts[19][19] == int(((true >= 19) & (predicted >= 19)).sum())
    assert len(dump_document(found)) < 20_000


def test_calibration_of_two_classes_is_scikit_learns() -> None:
    classes, true, predicted, probabilities = classifier(2)
    found = calibrate(classes, true, predicted, probabilities)
    shares, means = calibration_curve(true, probabilities[:, 1], n_bins=CALIBRATION_BINS)
    filled = [part for part in found.bins if part.rows]
    assert [part.positives / part.rows for part in filled] == pytest.approx(list(shares))
    assert [part.mean_probability for part in filled] == pytest.approx(list(means))
    assert sum(part.rows for part in found.bins) == 500
    assert found.brier == pytest.approx(sk.brier_score_loss(true, probabilities[:, 1]))
    weights = np.array([part.rows for part in filled]) / 500
    assert found.ece == pytest.approx(float((weights * np.abs(shares - means)).sum()))
    assert found.event == "positive_class"


def test_probabilities_on_the_edge_of_a_bin_fall_where_scikit_learn_puts_them() -> None:
    said = np.array([0.0, 0.1, 0.1, 0.5, 0.9, 1.0, 1.0])
    true = np.array([0, 0, 1, 1, 1, 1, 0])
    found = calibrate(BINARY, true, (said > 0.5).astype(int), np.column_stack([1 - said, said]))
    shares, means = calibration_curve(true, said, n_bins=CALIBRATION_BINS)
    filled = [part for part in found.bins if part.rows]
    assert [part.positives / part.rows for part in filled] == pytest.approx(list(shares))
    assert [part.mean_probability for part in filled] == pytest.approx(list(means))
    assert found.bins[1].mean_probability is None


def test_calibration_of_several_classes_is_about_the_predicted_class() -> None:
    classes, true, predicted, probabilities = classifier(4)
    found = calibrate(classes, true, predicted, probabilities)
    said, right = probabilities.max(axis=1), true == predicted
    assert found.event == "predicted_class"
    assert sum(part.positives for part in found.bins) == int(right.sum())
    by_hand = 0.0
    for low, high in zip(np.arange(0, 1, 0.1), np.arange(0.1, 1.1, 0.1), strict=True):
        part = (said > low) & (said <= high)
        by_hand += abs(right[part].mean() - said[part].mean()) * part.mean() if part.any() else 0
    assert found.ece == pytest.approx(by_hand)
    assert found.brier == pytest.approx(sk.brier_score_loss(true, probabilities, labels=range(4), scale_by_half=False))


def test_a_model_that_is_sure_and_always_right_is_calibrated() -> None:
    true = np.array([0, 1, 1])
    found = calibrate(BINARY, true, true, np.eye(2)[true])
    assert (found.ece, found.brier) == (0, 0)


@pytest.mark.parametrize("classes", [BINARY, Classes(("no", "yes", "maybe"), None)])
def test_without_probabilities_calibration_is_undefined_with_the_reason(classes: Classes) -> None:
    true = np.array([0, 1, 1])
    found = diagnose(ScoredModel(NOBODY, None, true, true, classes, None, "the model has no predict_proba"))
    assert found.calibration is None
    assert found.metrics == {}
    assert found.undefined == dict.fromkeys(("brier", "ece"), "the model has no predict_proba")
    assert found.confusion is not None


def test_one_class_alone_has_a_matrix_and_no_calibration() -> None:
    true = np.array([0, 0])
    found = diagnose(ScoredModel(NOBODY, None, true, true, Classes(("no",), None), np.ones((2, 1))))
    assert found.confusion is not None
    assert found.confusion.counts == ((2,),)
    assert "only one class, 'no'" in found.undefined["brier"]


def test_residuals_are_labels_minus_predictions_and_all_of_them_are_counted() -> None:
    true = RANDOM.normal(size=10_000)
    true[0] = 1e9
    found = diagnose(ScoredModel(NOBODY, None, true, np.zeros(10_000))).residuals
    assert found is not None
    assert sum(found.counts) + found.below + found.above == 10_000
    assert found.maximum == 1e9
    assert found.edges[-1] < 5
    assert list(found.counts) == np.histogram(true, bins=found.edges)[0].tolist()


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [1e300, 1e300], [-5.0] * 1000 + [4.0]])
def test_values_that_are_nearly_all_equal_have_a_histogram_too(values: list[float]) -> None:
    found = histogram(np.array(values), (0.005, 0.995))
    assert sum(found.counts) + found.below + found.above == len(values)
    assert (found.minimum, found.maximum) == (min(values), max(values))


def test_residuals_that_are_too_large_for_a_double_are_left_out() -> None:
    huge = np.array([1e308, -1e308])
    assert diagnose(ScoredModel(NOBODY, None, huge, -huge)).residuals is None
