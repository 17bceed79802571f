"""``python -m airflow_mcp.work train`` as a real process against a real MLflow server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.profile import read_profile
from airflow_mcp.work.reading.pinned_file import verified_file
from tests.support import warm
from tests.support.paths import DOCS
from tests.support.services import MlflowServer

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]

NO_AIRFLOW = "import sys; sys.modules['airflow'] = None; import runpy; sys.argv[0] = 'runtime'; "
COMMAND = [sys.executable, "-c", NO_AIRFLOW + "runpy.run_module('airflow_mcp.work', run_name='__main__')"]

FIT = """
import os, sys, mlflow, pandas as pd
from sklearn.linear_model import LogisticRegression
frame = pd.read_csv(os.environ["AIRFLOW_MCP_DATA_PATH"])
X, y = frame[["x1", "x2"]], frame["y"]
"""
# MLflow finds a model's requirements in a process that imports everything anew. With a time-out of 0 s that process is
# killed as it starts, and MLflow records its defaults: enough where a test is not about the model.
DEFAULT_REQUIREMENTS = {"MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "0"}
AUTOLOG = FIT + "mlflow.autolog()\nLogisticRegression().fit(X, y)\n"
LOG_MODEL = (
    FIT
    + """
from sklearn.ensemble import RandomForestClassifier
with mlflow.start_run():
    model = RandomForestClassifier(5, random_state=0).fit(X, y)
    mlflow.log_param("argument", sys.argv[1])
    mlflow.sklearn.log_model(
        model, name="model", signature=mlflow.models.infer_signature(X, model.predict(X)),
        serialization_format="cloudpickle", pip_requirements=[],
    )
"""
)
OUTSIDE_A_RUN = """
import mlflow
from sklearn.dummy import DummyClassifier
model = DummyClassifier().fit([[0], [1]], [0, 1])
mlflow.sklearn.log_model(model, name="model", serialization_format="cloudpickle", pip_requirements=[])
"""
CLIENT_ONLY = (
    FIT
    + """
import tempfile
from mlflow import MlflowClient
client = MlflowClient()
run = client.get_run(os.environ["AIRFLOW_MCP_RUN_ID"])
model = client.create_logged_model(run.info.experiment_id, name="model", source_run_id=run.info.run_id)
with tempfile.TemporaryDirectory() as folder:
    mlflow.sklearn.save_model(LogisticRegression().fit(X, y), folder + "/m", pip_requirements=[])
    client.log_model_artifacts(model.model_id, folder + "/m")
client.finalize_logged_model(model.model_id, "READY")
"""
)


class Training:
    """One run on the server and the environment to train into it."""

    def __init__(self, server: MlflowServer, folder: Path) -> None:
        self.server, self.client = server, MlflowClient(server.url)
        self.run_id = self.client.create_run("0").info.run_id
        self.folder = folder
        self.data = folder / "data.csv"
        rows = "".join(f"{n % 7},{n % 5},{int(n % 7 > 3)}\n" for n in range(70))
        self.data.write_text("x1,x2,y\n" + rows)
        self.environ = {
            **os.environ,
            "MLFLOW_TRACKING_URI": server.url,
            "MLFLOW_RUN_ID": self.run_id,
            "MLFLOW_EXPERIMENT_ID": "0",
            "AIRFLOW_MCP_RUN_ID": self.run_id,
            "AIRFLOW_MCP_DATA_PATH": str(self.data),
        }

    def command(self, script: str, *arguments: str) -> list[str]:
        path = self.folder / "script.py"
        path.write_text(textwrap.dedent(script))
        return [*COMMAND, "train", "--script", str(path), *(["--", *arguments] if arguments else [])]

    def start(self, script: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return warm.run(self.command(script, *arguments), env=self.environ | environ, text=True, timeout=120)

    @property
    def run(self) -> Run:
        return self.client.get_run(self.run_id)


@pytest.fixture
def training(mlflow_server: MlflowServer, tmp_path: Path) -> Training:
    return Training(mlflow_server, tmp_path)


def stop_when_started(training: Training, script: str, marker: Path) -> int:
    """Send SIGTERM to the step alone, as Kubernetes does, and give its exit code."""
    with subprocess.Popen(training.command(script), env=training.environ) as process:
        deadline = time.monotonic() + 60
        while not marker.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        return process.wait(30)


def models_of(run: Run) -> list[str]:
    return [item.model_id for item in run.outputs.model_outputs]


@pytest.mark.cold
def test_the_example_of_the_documentation_runs_as_it_is_printed(training: Training) -> None:
    page = (DOCS / "training-scripts.md").read_text()
    example = page.split("<!-- example: start -->")[1].split("<!-- example: end -->")[0]
    training.data.write_text(training.data.read_text().replace("x1,x2,y", "x1,x2,target"))
    config = training.folder / "config.yaml"
    config.write_text("n_estimators: 7\n")
    done = training.start(
        example.strip().removeprefix("```python").removesuffix("```"), AIRFLOW_MCP_CONFIG_PATH=str(config)
    )
    assert done.returncode == 0, done.stderr
    run = training.run
    assert run.info.status == "FINISHED"
    assert run.data.params == {"n_estimators": "7"}
    assert len(models_of(run)) == 1


def test_the_example_of_checkpoints_goes_on_where_the_last_try_ended(training: Training) -> None:
    page = (DOCS / "training-scripts.md").read_text()
    example = page.split("<!-- example: checkpoint -->")[1].split("<!-- example: end of checkpoint -->")[0]
    script = example.strip().removeprefix("```python").removesuffix("```")
    training.data.write_text(training.data.read_text().replace("x1,x2,y", "x1,x2,target"))
    place = {"AIRFLOW_MCP_CHECKPOINT_URI": str(training.folder / "checkpoints" / "abc")}
    broken = script.replace("# never half", "; assert epoch < 7  # never half")
    assert broken != script
    assert training.start(broken, **place).returncode == 1
    training.run_id = training.client.create_run("0").info.run_id
    training.environ |= dict.fromkeys(("AIRFLOW_MCP_RUN_ID", "MLFLOW_RUN_ID"), training.run_id)
    done = training.start(script, **place, **DEFAULT_REQUIREMENTS)
    assert done.returncode == 0, done.stderr
    assert training.run.data.params == {"resumed_from_epoch": "8"}
    assert len(models_of(training.run)) == 1


def test_a_script_that_survives_sigterm_was_stopped_all_the_same(training: Training) -> None:
    marker = training.folder / "started"
    script = f"""
        import pathlib, signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        pathlib.Path({str(marker)!r}).touch()
        time.sleep(60)
    """
    assert stop_when_started(training, script, marker) == 128 + signal.SIGTERM
    assert training.run.info.status == "KILLED"


def test_an_autologging_script_ends_finished_with_a_model(training: Training) -> None:
    done = training.start(AUTOLOG)
    assert done.returncode == 0, done.stderr
    run = training.run
    assert run.info.status == "FINISHED"
    assert len(models_of(run)) == 1
    with verified_file(DatasetPin(uri=str(training.data))) as (_, pin):
        assert run.data.tags["airflow_mcp.data_hash"] == pin.hash
    assert run.data.tags["airflow_mcp.python_version"].startswith("3.")
    assert {"airflow_mcp.mlflow_version", "airflow_mcp.sklearn_version"} <= set(run.data.tags)
    assert "Traceback" not in done.stderr


def test_a_log_model_script_gets_its_arguments(training: Training) -> None:
    done = training.start(LOG_MODEL, "--depth=3", "x")
    assert done.returncode == 0, done.stderr
    run = training.run
    assert run.info.status == "FINISHED"
    assert len(models_of(run)) == 1
    assert run.data.params["argument"] == "--depth=3"


def test_a_script_that_uses_the_client_only_is_finished_and_linked(training: Training) -> None:
    done = training.start(CLIENT_ONLY)
    assert done.returncode == 0, done.stderr
    assert training.run.info.status == "FINISHED"
    assert len(models_of(training.run)) == 1


@pytest.mark.parametrize("code", [0, 7])
def test_a_rank_above_0_runs_the_script_and_leaves_the_run_to_rank_0(training: Training, code: int) -> None:
    script = f"""
        import os, sys
        print("seen", os.environ.get("MLFLOW_RUN_ID"), os.environ["AIRFLOW_MCP_RUN_ID"])
        sys.exit({code})
    """
    done = training.start(script, RANK="1", WORLD_SIZE="2")
    assert (done.returncode, done.stdout) == (code, f"seen None {training.run_id}\n")
    run = training.run
    assert run.info.status == "RUNNING"
    assert not [tag for tag in run.data.tags if tag.startswith("airflow_mcp.")]


def test_rank_0_of_several_concludes_the_run(training: Training) -> None:
    done = training.start(AUTOLOG, RANK="0", WORLD_SIZE="2", **DEFAULT_REQUIREMENTS)
    assert done.returncode == 0, done.stderr
    assert training.run.info.status == "FINISHED"
    assert len(models_of(training.run)) == 1


def test_a_rank_above_0_refuses_data_that_is_not_what_was_pinned(training: Training) -> None:
    wrong = "sha256:" + "0" * 64
    done = training.start("print('ran')", RANK="1", WORLD_SIZE="2", AIRFLOW_MCP_DATA_HASH=wrong)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_script_that_fails_after_autologging_leaves_the_run_failed(training: Training) -> None:
    done = training.start(AUTOLOG + "sys.exit(7)\n", **DEFAULT_REQUIREMENTS)
    assert done.returncode == 7
    assert training.run.info.status == "FAILED"


def test_an_exception_of_the_script_is_shown_and_fails(training: Training) -> None:
    done = training.start(AUTOLOG + "raise KeyError('my own')\n", **DEFAULT_REQUIREMENTS)
    assert done.returncode == 1
    assert "KeyError: 'my own'" in done.stderr
    assert training.run.info.status == "FAILED"


def test_a_script_killed_by_a_signal_gives_128_plus_its_number(training: Training) -> None:
    done = training.start("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == 128 + signal.SIGKILL
    assert "ended by SIGKILL" in done.stderr
    assert training.run.info.status == "FAILED"


def test_sigterm_reaches_the_script_and_the_run_ends_killed(training: Training) -> None:
    marker = training.folder / "started"
    script = f"import pathlib, time\npathlib.Path({str(marker)!r}).touch()\ntime.sleep(60)"
    assert stop_when_started(training, script, marker) == 128 + signal.SIGTERM
    assert training.run.info.status == "KILLED"


@pytest.mark.parametrize("more", ["", OUTSIDE_A_RUN], ids=["none", "outside a run"])
def test_a_script_that_logs_no_model_to_its_run_is_an_error(training: Training, more: str) -> None:
    done = training.start(f"print('all well')\n{more}")
    assert done.returncode == 1
    assert "all well" in done.stdout
    assert f"error: the script succeeded but logged no model to run {training.run_id}" in done.stderr
    assert "within mlflow.start_run()" in done.stderr
    assert "Traceback" not in done.stderr
    assert training.run.info.status == "RUNNING"


def test_the_profile_of_the_data_is_kept_before_the_script_runs_unless_it_is_not_wanted(training: Training) -> None:
    done = training.start("raise SystemExit(3)")
    assert done.returncode == 3
    tags = training.run.data.tags
    assert tags["airflow_mcp.data_profile"] == "profile/profile.json"
    stored = training.client.download_artifacts(training.run_id, "profile/profile.json", str(training.folder))
    profile = read_profile(Path(stored).read_bytes(), "profile")
    assert (profile.rows, [column.name for column in profile.columns]) == (70, ["x1", "x2", "y"])
    assert profile.sources[0].hash == tags["airflow_mcp.data_hash"]
    other = Training(training.server, training.folder)
    other.start("raise SystemExit(3)", AIRFLOW_MCP_PROFILE_DATA="false")
    assert "airflow_mcp.data_profile" not in other.run.data.tags


def test_data_that_has_no_profile_does_not_stop_a_training(training: Training) -> None:
    picture = training.folder / "data.png"
    picture.write_bytes(b"\x89PNG")
    done = training.start("print('started')", AIRFLOW_MCP_DATA_PATH=str(picture))
    assert "started" in done.stdout
    assert "the dataset was not profiled: " in done.stderr + done.stdout
    assert "airflow_mcp.data_profile" not in training.run.data.tags


def test_changed_data_stops_before_the_script_starts(training: Training) -> None:
    done = training.start("print('started')", AIRFLOW_MCP_DATA_HASH="sha256:" + "0" * 64)
    assert done.returncode == 2
    assert "is not the one that was pinned" in done.stderr
    assert "started" not in done.stdout
    assert "airflow_mcp.data_hash" not in training.run.data.tags


def test_a_deleted_run_stops_before_the_script_starts(training: Training) -> None:
    training.client.delete_run(training.run_id)
    done = training.start("print('started')")
    assert done.returncode == 2
    assert f"MLflow run {training.run_id} is deleted" in done.stderr
    assert "started" not in done.stdout


def test_an_unknown_run_is_a_failure_with_the_servers_answer(training: Training) -> None:
    done = training.start("print('started')", AIRFLOW_MCP_RUN_ID="f" * 32, MLFLOW_RUN_ID="f" * 32)
    assert done.returncode == 1
    assert "error: MLflow could not read run" in done.stderr
    assert "not found" in done.stderr


@pytest.mark.parametrize("make", [lambda folder: folder / "none.py", lambda folder: folder / "data.csv"])
def test_what_is_not_a_script_is_refused(training: Training, make: Callable[[Path], Path]) -> None:
    command = [*COMMAND, "train", "--script", str(make(training.folder))]
    done = warm.run(command, env=training.environ, text=True)
    assert done.returncode == 2
    assert "--script must be an existing .py file" in done.stderr


def test_an_unreachable_server_is_a_failure_without_the_password(training: Training) -> None:
    done = training.start(
        "pass", MLFLOW_TRACKING_URI="http://me:hunter2@127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"
    )
    assert done.returncode == 1
    assert "error: MLflow could not read run" in done.stderr
    assert "hunter2" not in done.stderr
