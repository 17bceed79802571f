"""``airflow-mcp migrate``: rewrites pipeline files of earlier versions with the names of this one."""

from __future__ import annotations

import argparse
import difflib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from airflow_mcp.cli.options import add_format, print_answer
from airflow_mcp.core.pipeline.file.document import read_document
from airflow_mcp.core.pipeline.file.migration import migrate
from airflow_mcp.dag_rendering.files import looks_like_a_pipeline
from airflow_mcp.dag_rendering.loader import DEFAULTS, SUFFIXES
from airflow_mcp.exceptions import InvalidArgumentError, PipelineSpecError, SpecProblem


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the paths and ``--check``."""
    command.add_argument("paths", nargs="+", metavar="PATH", help="pipeline file, or folder with pipeline files")
    command.add_argument(
        "--check", action="store_true", help="write nothing, show the difference, and exit with 1 if there is one"
    )
    add_format(command)


def run(parsed: argparse.Namespace) -> int:
    """Rewrite what has earlier names; the exit code is 1 when a file cannot be migrated, or --check finds a difference.

    Nothing is written unless every file can be migrated.
    """
    changed: list[tuple[Path, bytes, str, tuple[str, ...]]] = []
    files = list(dict.fromkeys(_files(parsed.paths)))
    problems: list[SpecProblem] = []
    for path in files:
        data = path.read_bytes()
        try:
            found = migrate(data, str(path), is_defaults=path.name == DEFAULTS)
        except PipelineSpecError as error:
            problems += error.problems
            continue
        if found.changes:
            changed.append((path, data, found.text, found.changes))
    if problems:
        raise PipelineSpecError(problems)
    lines: list[str] = []
    for path, data, text, changes in changed:
        if parsed.check:
            lines += _difference(path, data.decode(), text).splitlines()
        else:
            _replace(path, text.encode())
            lines += [f"{path}:{change}" for change in changes]
    count = f"{len(files)} file{'' if len(files) == 1 else 's'}"
    lines.append(f"{count}, {len(changed)} {'to migrate' if parsed.check else 'migrated'}")
    made = [{"file": str(path), "changes": list(changes)} for path, _, _, changes in changed]
    print_answer(parsed, {"files": len(files), "written": not parsed.check, "changed": made}, lines)
    return 1 if parsed.check and changed else 0


def _files(paths: list[str]) -> Iterator[Path]:
    """Yield the files to look at: named ones, and in folders the pipelines and their defaults."""
    for path in map(Path, paths):
        if path.is_file():
            yield path
        elif path.is_dir():
            yield from (found for found in sorted(path.rglob("*")) if _is_pipeline(found, path))
        else:
            raise InvalidArgumentError(f"{path} does not exist. Nothing was changed; name pipeline files, or folders")


def _is_pipeline(path: Path, folder: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    if is_hidden or path.suffix not in SUFFIXES or not path.is_file():
        return False
    data = path.read_bytes()
    return path.name == DEFAULTS or looks_like_a_pipeline(read_document(data, path.name, []), data)


def _difference(path: Path, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), str(path), f"{path} (migrated)"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _replace(path: Path, data: bytes) -> None:
    """Write a file at once, with the rights of the old one: a reader sees the old text or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
