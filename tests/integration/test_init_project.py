"""The project that ``airflow-mcp init`` makes: its script trains for real, and logs what its gate judges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_mcp.cli import main

pytestmark = pytest.mark.integration

LOOK = """
import json, mlflow
(run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
(model,) = mlflow.search_logged_models(experiment_ids=[run.info.experiment_id], output_format="list")
predicted = mlflow.pyfunc.load_model(model.model_uri)
print(json.dumps({**run.data.metrics, **run.data.params, "example": predicted.input_example is not None}))
"""


def test_the_script_trains_a_model_that_its_gate_takes(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "m")]) == 0
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"n_estimators": 20, "seed": 1}), encoding="utf-8")
    env = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "AIRFLOW_MCP_CONFIG_PATH": str(config),
    }
    for call in (["-m", "unittest", "test_train"], ["train.py"], ["-c", LOOK]):
        done = subprocess.run(
            [sys.executable, *call], cwd=tmp_path / "m", env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["accuracy"] >= 0.9
    assert (told["n_estimators"], told["seed"], told["example"]) == ("20", "1", True)
