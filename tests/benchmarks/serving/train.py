"""The model of the comparison: ``python -m tests.benchmarks.serving.train FOLDER``, in an interpreter of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow.sklearn
import numpy
import pandas
from mlflow.models import infer_signature
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier

from tests.benchmarks.serving.contenders import COLUMNS


def train(folder: Path) -> Path:
    """Train the model of the comparison and save it: gradient boosting, 100 trees, 30 columns of doubles."""
    values, labels = make_classification(2000, COLUMNS, random_state=0)
    frame = pandas.DataFrame(values, columns=[f"column_{number}" for number in range(COLUMNS)])
    model = GradientBoostingClassifier(n_estimators=100, random_state=0).fit(frame, labels)
    signature = infer_signature(frame, numpy.asarray(model.predict(frame)))
    path = folder / "model"
    mlflow.sklearn.save_model(model, path, signature=signature, serialization_format="pickle")
    return path


if __name__ == "__main__":
    print(json.dumps(str(train(Path(sys.argv[1])))))
