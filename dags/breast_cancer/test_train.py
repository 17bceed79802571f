"""Tests of the training code; the Dag quality_gates runs them."""

import pandas as pd
from train import fit

CONFIG = {"scaling": "standard", "regularisation": 1.0, "max_iterations": 100, "seed": 0}


def test_the_model_learns_what_is_plain_to_see() -> None:
    """Two groups that one number tells apart."""
    features = pd.DataFrame({"size": [1.0, 1.1, 0.9, 5.0, 5.1, 4.9]})
    labels = pd.Series([0, 0, 0, 1, 1, 1])
    assert list(fit(CONFIG, features, labels).predict(features)) == [0, 0, 0, 1, 1, 1]


def test_box_cox_learns_the_same() -> None:
    """It bends each column until it is as even as it gets."""
    features = pd.DataFrame({"size": [1.0, 1.1, 0.9, 50.0, 51.0, 49.0]})
    labels = pd.Series([0, 0, 0, 1, 1, 1])
    model = fit({**CONFIG, "scaling": "box-cox"}, features, labels)
    assert list(model.predict(features)) == [0, 0, 0, 1, 1, 1]
