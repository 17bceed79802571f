"""``airflow-mcp render``: writes small Dag files that load the pipeline files into Airflow's Dags folder."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from airflow_mcp.cli.options import add_format, print_answer
from airflow_mcp.cli.pipeline_files import FoundProblem, add_environment, check_paths, note_unused_defaults
from airflow_mcp.dag_rendering.loader import load_pipeline_folder
from airflow_mcp.dag_rendering.stubs import StubChanges, compare_stubs, write_stubs
from airflow_mcp.exceptions import InvalidArgumentError


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add both folders, the number of groups and ``--check``."""
    command.add_argument("folder", metavar="FOLDER", help="folder with pipeline files")
    command.add_argument("--dags-folder", required=True, metavar="DIR", help="Airflow's Dags folder, or a folder in it")
    command.add_argument(
        "--groups",
        type=int,
        default=0,
        metavar="N",
        help="spread the pipelines over N Dag files, for hundreds of pipelines; default: one Dag file each",
    )
    command.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file would change")
    add_environment(command, default=None)
    add_format(command)


def run(parsed: argparse.Namespace) -> int:
    """Write what differs. Files that are not valid are reported and do not affect the others.

    :raises InvalidArgumentError: when the folder has neither pipelines nor stubs, or a stub belongs to another folder.
    """
    root, dags_folder = (Path(os.path.abspath(path)) for path in (parsed.folder, parsed.dags_folder))  # noqa: PTH100 -- resolve() would follow links
    pipelines = load_pipeline_folder(root, parsed.env or "dev")
    act = compare_stubs if parsed.check else write_stubs
    changes = act(pipelines, root, dags_folder, parsed.groups)
    if not pipelines and changes == StubChanges((), (), 0):
        raise InvalidArgumentError(f"there is no ModelPipeline in {parsed.folder}. Name the folder of pipeline files")
    note_unused_defaults(root)
    problems = _problems(parsed, changes) if pipelines or changes.no_pipelines else []
    for found in problems:
        print(found.problem, file=sys.stderr)
    to = "to be " if parsed.check else ""
    lines = [f"{'would write' if parsed.check else 'wrote'} {stub.path}" for stub in changes.written]
    lines += [f"{'would remove' if parsed.check else 'removed'} {path}" for path in changes.removed]
    lines.append(
        f"stubs: {len(changes.written)} {to}written, {len(changes.removed)} {to}removed, {changes.kept} up to date"
    )
    document = {
        "check": parsed.check,
        "written": [str(stub.path) for stub in changes.written],
        "removed": [str(path) for path in changes.removed],
        "up_to_date": changes.kept,
        "problems": [{**each.problem._asdict(), "environments": list(each.environments)} for each in problems],
    }
    print_answer(parsed, document, lines)
    return 1 if problems or (parsed.check and not changes.is_up_to_date) else 0


def _problems(parsed: argparse.Namespace, changes: StubChanges) -> list[FoundProblem]:
    """Return the problems of the pipelines, and of files that have a stub but are no longer pipelines."""
    paths = [parsed.folder, *(os.path.relpath(path) for path in changes.no_pipelines)]
    return check_paths(paths, parsed.env, parsed.folder).problems
