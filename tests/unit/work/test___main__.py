from __future__ import annotations

import os
import subprocess
import sys

import pytest

NO_AIRFLOW = "import sys; sys.modules['airflow'] = None; "
MAIN = "import runpy; runpy.run_module('airflow_mcp.work', run_name='__main__')"


def run(*arguments: str, before: str = NO_AIRFLOW, **environ: str) -> subprocess.CompletedProcess[str]:
    code = f"{before}import sys; sys.argv = ['runtime', *{arguments!r}]; {MAIN}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "AIRFLOW"))}
    return subprocess.run(
        [sys.executable, "-c", code], env=inherited | environ, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("step", ["evaluate", "drift", "load-check"])
def test_a_step_without_its_environment_is_refused_in_one_line(step: str) -> None:
    done = run(step)
    assert done.returncode == 2
    assert done.stderr.startswith("error: environment variables are missing or empty: MLFLOW_TRACKING_URI, ")
    assert len(done.stderr.splitlines()) == 1


def test_training_without_its_environment_is_refused_in_one_line() -> None:
    done = run("train", "--script", __file__)
    assert done.returncode == 2
    assert "MLFLOW_TRACKING_URI, AIRFLOW_MCP_RUN_ID" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_step_is_refused_with_those_there_are() -> None:
    done = run("deploy")
    assert done.returncode == 2
    assert "train" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unexpected_error_keeps_its_traceback() -> None:
    # A request that is a folder is foreseen; an interpreter without pydantic is not.
    done = run("drift", before="import sys; sys.modules['pydantic'] = None; ")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "error: unexpected failure in step 'drift'" in done.stderr


def test_training_does_not_import_evidently_pandas_or_scikit_learn() -> None:
    heavy = ("evidently", "pandas", "sklearn", "airflow", "mlflow")
    code = f"import sys, airflow_mcp.work.steps.train; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
