"""Command line of the work plane: ``python -m airflow_mcp.work STEP``; ``--help`` lists the steps.

Exit codes: 0 done; 1 failed, a retry may succeed; 2 refused, a retry with the same input will be refused again. Step
``train`` passes on the exit code of the script. Errors of this package are one line on stderr; a traceback means a
defect or an error of a library.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from airflow_mcp.core.contract import ENV_DATA_SOURCE, ENV_SCRIPT_PATH, ENV_SOURCE_URL, EXIT_REFUSED
from airflow_mcp.core.serving.own_memory import close_to_same_user
from airflow_mcp.exceptions import InvalidArgumentError, ModelControlPlaneError, RefusedError
from airflow_mcp.work.run.step_span import step_span

EXIT_FAILED = 1
_STEPS: Mapping[str, tuple[str, str]] = {
    "evaluate": ("evaluate", "evaluate"),
    "replay": ("replay", "replay"),
    "copy-model": ("copy_model", "copy_model"),
    "load-check": ("load_check", "load_check"),
    "publish-model": ("publish_model", "publish_model"),
    "drift": ("drift", "check_drift"),
    "quality": ("quality", "check_quality"),
    "get-features": ("features", "get"),
    "compare-features": ("features", "compare"),
}
"""Module and function of the steps whose only input is the environment."""
_log = logging.getLogger("airflow_mcp.work")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step.

    :param arguments: command line without the program name; None uses that of this process.
    :return: the exit code.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    options = _parser().parse_args(arguments)
    try:
        if options.step in ("serve-model", "ship-log"):  # they belong to a model server and run as long as it does
            return _run(options)
        with step_span(options.step) as end_span:
            exit_code = _run(options)
            end_span(exit_code)
            return exit_code
    except ModelControlPlaneError as error:
        _log.error("error: %s", " ".join(str(error).split()))
        return EXIT_REFUSED if isinstance(error, RefusedError) else EXIT_FAILED
    except Exception:
        _log.exception("error: unexpected failure in step %r", options.step)
        return EXIT_FAILED


def _run(options: argparse.Namespace) -> int:
    """Import only the step that runs: a training script should not wait for the imports of others."""
    if options.step == "train":
        from airflow_mcp.work.steps.train import train  # noqa: PLC0415

        if options.script is None:
            raise InvalidArgumentError(
                f"there is no script: pass --script PATH or set {ENV_SCRIPT_PATH}. Nothing was started"
            )
        return train(options.script, options.script_arguments, os.environ)
    if options.step == "checkout":
        return _checkout()
    if options.step == "serve-model":
        from airflow_mcp.work.serve_model.process import serve_model  # noqa: PLC0415

        return serve_model(options.fd, options.model)
    if options.step == "ship-log":
        close_to_same_user()  # first: models run as the same user, and credentials of the store are here
        from airflow_mcp.work.steps.ship_log import ship_log  # noqa: PLC0415

        return ship_log(options.folder, options.pod, os.environ)
    module, function = _STEPS[options.step]
    getattr(importlib.import_module(f"airflow_mcp.work.steps.{module}"), function)(os.environ)
    return 0


def _checkout() -> int:
    """Fetch code, data of DVC or Git LFS, or both."""
    from airflow_mcp.work.sources.git_checkout import checkout  # noqa: PLC0415

    if os.environ.get(ENV_SOURCE_URL) or not os.environ.get(ENV_DATA_SOURCE):
        checkout(os.environ)
    if os.environ.get(ENV_DATA_SOURCE):
        from airflow_mcp.work.sources.repository_data import fetch_pinned_data  # noqa: PLC0415

        fetch_pinned_data(os.environ)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_mcp.work",
        description="Steps of a model pipeline. All other input comes from environment variables (docs/work-plane.md).",
    )
    steps = parser.add_subparsers(dest="step", required=True)
    train = steps.add_parser("train", help="run a training script in the MLflow run that the environment names")
    train.add_argument(
        "--script",
        type=Path,
        default=os.environ.get(ENV_SCRIPT_PATH),
        help=f"path of the training script (.py); default: {ENV_SCRIPT_PATH}",
    )
    train.add_argument("script_arguments", nargs="*", metavar="-- ARGUMENT", help="arguments of the script, after '--'")
    steps.add_parser("checkout", help="fetch the code and the data of DVC or Git LFS that the environment names")
    steps.add_parser("evaluate", help="measure a candidate, and the champion, on a pinned dataset")
    steps.add_parser("replay", help="let a candidate and a champion predict logged requests")
    steps.add_parser("copy-model", help="copy a registered version from one MLflow server to another")
    steps.add_parser("drift", help="compare a current dataset with a reference dataset")
    steps.add_parser("get-features", help="read features of a Feast feature store into a data version")
    steps.add_parser("compare-features", help="compare the online store of Feast with its offline store")
    steps.add_parser("quality", help="judge logged predictions by labels that arrived later")
    steps.add_parser("load-check", help="load a registered model version and let it answer its input example")
    steps.add_parser("publish-model", help="make an uploaded file a logged model")
    serve = steps.add_parser("serve-model", help="answer batches for the model server, which starts this by itself")
    serve.add_argument("--fd", type=int, required=True, help="file descriptor of the socket to the model server")
    serve.add_argument("--model", type=Path, required=True, help="folder of the model's files")
    ship = steps.add_parser("ship-log", help="store the log of the model server, which starts this by itself")
    ship.add_argument("--folder", type=Path, required=True, help="folder of the segments")
    ship.add_argument("--pod", required=True, help="name of the server among its replicas")
    return parser


if __name__ == "__main__":
    sys.exit(main())
