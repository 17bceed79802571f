"""``airflow-mcp validate``: lists every problem of pipeline files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from airflow_mcp.cli.deployable import add_registry, registry_check
from airflow_mcp.cli.options import add_format
from airflow_mcp.cli.pipeline_files import (
    Check,
    Checked,
    FoundProblem,
    add_environment,
    add_root,
    check_paths,
    note_unused_defaults,
)
from airflow_mcp.cli.release_chain import add_policy, policy_of, release_problems
from airflow_mcp.dag_rendering.loader import LoadedPipeline
from airflow_mcp.exceptions import SpecProblem


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the paths, the environment and the format."""
    command.add_argument("paths", nargs="+", metavar="PATH", help="pipeline file, or folder with pipeline files")
    add_environment(command, default=None)
    add_root(command)
    add_policy(command)
    add_registry(command)
    add_format(command, "github")


def run(parsed: argparse.Namespace) -> int:
    """Print all problems; the exit code is 1 when there are any."""
    for path in parsed.paths:
        if Path(path).is_dir():
            note_unused_defaults(path)
    checked = check_paths(parsed.paths, parsed.env, parsed.root, _further_checks(parsed))
    write = {"text": _text, "json": _json, "github": _github}[parsed.format]
    print(write(checked))
    return 1 if checked.problems else 0


def _further_checks(parsed: argparse.Namespace) -> Check | None:
    """Return the checks against the policy and against the registry; None when there is neither."""
    policy, registry = policy_of(parsed), registry_check(parsed)

    def check(loaded: LoadedPipeline) -> Iterator[SpecProblem]:
        if policy is not None:
            yield from release_problems(loaded, policy)
        if registry is not None:
            yield from registry(loaded)

    return check if policy is not None or registry is not None else None


def _text(checked: Checked) -> str:
    lines = [f"{found.problem}{_where(found)}" for found in checked.problems]
    return "\n".join(
        [*lines, *(f"{file}: warning: {warning}" for file, warning in _warnings(checked)), checked.summary()]
    )


def _warnings(checked: Checked) -> list[tuple[str, str]]:
    return [(file, warning) for file, found in sorted(checked.warnings.items()) for warning in sorted(found)]


def _where(found: FoundProblem) -> str:
    return "" if "dev" in found.environments else f" [{', '.join(found.environments)}]"


def _json(checked: Checked) -> str:
    found = [{**each.problem._asdict(), "environments": list(each.environments)} for each in checked.problems]
    environments = {name: sorted(files) for name, files in checked.environments.items()}
    warnings = [{"file": file, "message": warning} for file, warning in _warnings(checked)]
    document = {"files": checked.files, "environments": environments, "problems": found, "warnings": warnings}
    return json.dumps(document, indent=2)


def _github(checked: Checked) -> str:
    lines = []
    for found in checked.problems:
        file, line, column, field, message = found.problem
        place = f"file={_property(file)},line={line},col={column},title={_property(field or 'ModelPipeline')}"
        lines.append(f"::error {place}::{_message(message + _where(found))}")
    lines += [f"::warning file={_property(file)}::{_message(warning)}" for file, warning in _warnings(checked)]
    return "\n".join([*lines, checked.summary()])


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
