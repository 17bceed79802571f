"""``airflow-mcp init``: creates a working project to start from."""

from __future__ import annotations

import argparse
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from airflow_mcp.cli.options import add_format, print_answer
from airflow_mcp.exceptions import InvalidArgumentError

FILES = ("pipeline.yaml", "train.py", "test_train.py", "README.md")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the folder and the name."""
    command.add_argument(
        "folder", metavar="DIR", help="folder to create; it may exist, existing files are never overwritten"
    )
    command.add_argument("--name", help="name of the pipeline; default: the name of the folder")
    add_format(command)


def run(parsed: argparse.Namespace) -> int:
    """Write the files of a new project.

    :raises InvalidArgumentError: when one of them exists already; nothing is written then.
    """
    folder = Path(parsed.folder).absolute()
    name = parsed.name or re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-") or "my-model"
    if not re.fullmatch(r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?", name):
        raise InvalidArgumentError(f"--name must be lower-case letters, digits, '-', '_' and '.'; got {name!r}")
    there = [file for file in FILES if (folder / file).exists()]
    if there:
        raise InvalidArgumentError(
            f"{folder} already contains {', '.join(there)}. Nothing was written; name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        (folder / file).write_text(_text(file).safe_substitute(name=name), encoding="utf-8")
    written = [str(folder / file) for file in FILES]
    lines = [*(f"wrote {file}" for file in written), f"next: airflow-mcp validate {parsed.folder}"]
    print_answer(parsed, {"name": name, "written": written}, lines)
    return 0


def _text(file: str) -> Template:
    scaffold = files("airflow_mcp.cli") / "scaffold"
    source = scaffold / (file if file.endswith(".yaml") else f"{file}.txt")
    return Template(source.read_text(encoding="utf-8"))
