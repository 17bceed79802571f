"""Train a classifier on the breast cancer data: a plain script, nothing in it knows who runs it.

It reads where config and data are from its environment. MLflow finds server and run there by itself.
"""

import os
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PowerTransformer, StandardScaler


def fit(config: dict[str, Any], features: pd.DataFrame, labels: pd.Series) -> Pipeline:
    """Fit a model as the config says."""
    classifier = LogisticRegression(
        C=config["regularisation"], max_iter=config["max_iterations"], random_state=config["seed"]
    )
    scaler = PowerTransformer(method="box-cox") if config["scaling"] == "box-cox" else StandardScaler()
    return make_pipeline(scaler, classifier).fit(features, labels)


def main() -> None:
    """Read config and data, fit, and log parameters, metrics and the model to the given MLflow run."""
    config = yaml.safe_load(Path(os.environ["AIRFLOW_MCP_CONFIG_PATH"]).read_text(encoding="utf-8"))
    data = pd.read_csv(os.environ["AIRFLOW_MCP_DATA_PATH"])
    features, labels = data.drop(columns=config["target"]), data[config["target"]]

    with mlflow.start_run():  # continues the run named by MLFLOW_RUN_ID
        mlflow.log_params(config)
        model = fit(config, features, labels)
        accuracy = accuracy_score(labels, model.predict(features))
        mlflow.log_metric("training_accuracy", accuracy)
        print(f"{len(data)} rows, accuracy on the training data {accuracy:.4f}")
        mlflow.sklearn.log_model(
            model,
            name="model",
            signature=mlflow.models.infer_signature(features, model.predict(features)),
            input_example=features.head(3),
            # What loading it needs. Without, MLflow loads it in a process of its own to find out, which takes seconds.
            pip_requirements=mlflow.sklearn.get_default_pip_requirements(),
        )


if __name__ == "__main__":
    main()
