"""A pipeline file as it was at a Git revision, with everything beside it as it was then."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

from airflow_mcp.core.pipeline.plan.build import build_plan
from airflow_mcp.core.pipeline.plan.entities import PipelinePlan
from airflow_mcp.dag_rendering.loader import load_pipeline_file
from airflow_mcp.exceptions import InvalidArgumentError


def plan_at_revision(path: str, revision: str, environment: str, root: str | None) -> PipelinePlan:
    """Plan a file as a Git revision has it; the working tree is not touched.

    :param path: the file as it is now.
    :param revision: branch, tag or commit of the repository that the file is in.
    :param environment: dev, test or prod.
    :param root: folder of all pipelines; None takes that of the file.
    :raises InvalidArgumentError: when there is no such revision, or the file is not in it.
    """
    file = Path(path).resolve()
    folder = (Path(root) if root else file.parent).resolve()
    top = Path(_git(file.parent, "rev-parse", "--show-toplevel").decode().strip())
    commit = (
        _git(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    )
    with tempfile.TemporaryDirectory() as temporary:
        with tarfile.open(fileobj=io.BytesIO(_git(top, "archive", "--format=tar", commit))) as archive:
            archive.extractall(temporary, filter="data")
        then = Path(temporary).resolve()
        old = then / file.relative_to(top)
        if not old.is_file():
            raise InvalidArgumentError(f"{path} is not in revision {revision}; name one that has it, or another file")
        loaded = load_pipeline_file(old, environment, root=then / folder.relative_to(top))
        return build_plan(loaded.pipeline, environment, replace(loaded.source, folder=str(file.parent)))


def _git(folder: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)  # noqa: S607
    except OSError as error:
        raise InvalidArgumentError(f"--against needs git: {error}; or name another file") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or "there is no such revision"
        raise InvalidArgumentError(f"--against: {said}; allowed: a file, or a branch, tag or commit of this repository")
    return done.stdout
