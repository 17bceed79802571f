"""Models that are really logged to an MLflow server, sound ones and others."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mcp.core.mlflow_entities import ModelVersion

if TYPE_CHECKING:
    from tests.support.mlflow_world import World
    from tests.support.services import MlflowServer


@dataclass(frozen=True)
class Logged:
    """A logged model, and where the server keeps its files."""

    run_id: str
    model_id: str
    files: Path

    def tear(self) -> None:
        """Do what a disk does: the pickle is there and cannot be read."""
        (self.files / "model.pkl").write_bytes(b"torn")

    def lose(self) -> None:
        """Do what a clean-up of old files does."""
        shutil.rmtree(self.files)

    def register(self, world: World, **tags: str) -> ModelVersion:
        """Make it a version of the test's model, which is made when it is missing."""
        if not any(world.model_name == model.name for model in world.hook.search_registered_models()):
            world.hook.create_registered_model(world.model_name)
        return world.hook.create_model_version(
            world.model_name, f"models:/{self.model_id}", run_id=self.run_id, model_id=self.model_id, tags=tags
        )


@contextlib.contextmanager
def tracking(url: str) -> Iterator[None]:
    """Let MLflow's own client speak to a server for a while; afterwards the process-wide address is as it was.

    :param url: address of the MLflow server.
    """
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(url)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # removes the environment variable too
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def log_tree(server: MlflowServer, **options: Any) -> Logged:
    """Log a decision tree; by default with an input example of three rows.

    :param options: of ``mlflow.sklearn.log_model``.
    """
    import mlflow
    import pandas as pd
    from sklearn.tree import DecisionTreeClassifier

    frame = pd.DataFrame({"x1": [0.0, 1.0, 2.0], "x2": [1.0, 0.0, 1.0]})
    tree = DecisionTreeClassifier(random_state=0).fit(frame, [0, 1, 1])
    given: Mapping[str, Any] = {"input_example": frame, "pip_requirements": [], **options}
    return log(
        server, lambda: mlflow.sklearn.log_model(tree, name="model", serialization_format="cloudpickle", **given)
    )


def log(server: MlflowServer, log_model: Any) -> Logged:
    """Log a model into a finished run of its own.

    :param log_model: called inside the run; returns what MLflow's ``log_model`` returns.
    """
    import mlflow

    with tracking(server.url), mlflow.start_run(experiment_id="0") as run:
        info = log_model()
    (found,) = (server.folder / "artifacts").rglob(f"{info.model_id}/artifacts")
    return Logged(run.info.run_id, info.model_id, found)
