"""``python -m demo run`` plays five nights; ``python -m demo ui`` shows them in Airflow's web UI."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from textwrap import indent
from typing import Any, NoReturn

from demo.client import Client
from demo.nights import DRIFT, RETRAIN, ROLLOUT, Night, Nights
from demo.stage import MODEL, REPOSITORY, Stage

_started = time.monotonic()


def main() -> int:
    """Run the command line.

    :return: exit code; 0 only if every night ended as it should.
    """
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("what", choices=["run", "ui"])
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".demo", help="where everything is written")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        return run(arguments.folder) if arguments.what == "run" else ui(arguments.folder)
    except KeyboardInterrupt:
        say("\nstopped")
        return 130


def run(folder: Path) -> int:
    """Play the five nights in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    stage = Stage(folder, dags=(RETRAIN, DRIFT, ROLLOUT))
    say("Starting a real MLflow server, a real Airflow and a model server on this machine …")
    # The audit log is a file: its commands run while the services stop.
    with ThreadPoolExecutor() as pool, stage, Client(stage.serving_port) as client:
        say(f"  MLflow  {stage.mlflow.url}\n  Airflow {stage.airflow.url}\n  Model   {stage.serving_url}")
        for dag_id in (RETRAIN, DRIFT, ROLLOUT):
            stage.api.wait_for_dag(dag_id)
            stage.api.unpause(dag_id)
        nights = Nights(stage, client, say).play()
        audited = [
            pool.submit(stage.audit, *arguments) for arguments in (("list", "--event", "registry."), ("verify",))
        ]
    _table(nights)
    return _show_moves(audited) or int(any(night.problems for night in nights))


def ui(folder: Path) -> int:
    """Start all services on the data of an earlier ``run`` and wait for Ctrl-C."""
    stage = Stage(folder)
    if not stage.has_run:
        say(f"{folder} holds no demo; play it first: make demo")
        return 2
    with stage:
        say(f"Airflow  {stage.airflow.url}   ({stage.login})")
        say(f"MLflow   {stage.mlflow.url}")
        say(f"Model    {stage.serving_url}/docs")
        say(f"Status   airflow-mcp status {MODEL} --tracking-uri {stage.mlflow.url}")
        say("Ctrl-C stops all of them.")
        signal.pause()
    return 0


def say(line: str) -> None:
    """Print a line with the seconds since the start."""
    head = f"[{time.monotonic() - _started:5.0f} s] "
    text = line.lstrip("\n")
    print("\n" * (len(line) - len(text)) + head + text.replace("\n", "\n" + " " * len(head)), flush=True)


def _table(nights: list[Night]) -> None:
    say("\nFive nights")
    print(f"\n  {'night':<22}{'champion':<10}{'previous':<10}{'trainings':<11}{'answers, errors':<17}{'what happened'}")
    for night in nights:
        verdict = night.story if not night.problems else "UNEXPECTED: " + night.problems[0].splitlines()[0]
        print(
            f"  {f'{night.number} {night.title}':<22}{night.champion:<10}{night.previous:<10}"
            f"{night.trainings:<11}{night.answers!s:<17}{verdict}  ({night.seconds:.0f} s)"
        )
    print("\nReports, to be opened in a browser:")
    for report in [report for night in nights for report in night.reports]:
        print(f"  {report}")
    print("\nLook further:\n  make demo-ui      Airflow's web UI and MLflow with these runs")
    print("  make clean        remove everything the demo wrote\n", flush=True)


def _show_moves(audited: list[Future[str]]) -> int:
    """Print who moved what, and whether the audit log is whole; return 1 when it is not."""
    try:
        print("Who moved which model, from the audit log:")
        for printed in audited:
            print(indent(printed.result(), "  "), flush=True)
    except RuntimeError as error:
        print(f"UNEXPECTED: {error}", flush=True)
        return 1
    return 0


def _stop(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
