"""A pipeline file at a Git revision, with all files beside it at that revision."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

from airflow_mcp.core.pipeline.plan.build import build_plan
from airflow_mcp.core.pipeline.plan.entities import PipelinePlan
from airflow_mcp.dag_rendering.loader import load_pipeline_file, pipelines_root
from airflow_mcp.exceptions import InvalidArgumentError, PipelineSpecError


def plan_at_revision(path: str, revision: str, environment: str, root: str | None) -> PipelinePlan:
    """Plan a file as it is at a Git revision; the working tree is not touched.

    :param path: the present file.
    :param revision: branch, tag or commit of the file's repository.
    :param environment: dev, test or prod.
    :param root: folder of all pipelines; None searches for it, as at that revision.
    :raises InvalidArgumentError: when there is no such revision, or it does not have the file.
    :raises PipelineSpecError: when the file is not valid at that revision; problems name it ``<revision>:<file>``.
    """
    file = Path(path).resolve()
    top = Path(_git(file.parent, "rev-parse", "--show-toplevel").decode().strip())
    commit = (
        _git(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    )
    with tempfile.TemporaryDirectory() as temporary:
        with tarfile.open(fileobj=io.BytesIO(_git(top, "archive", "--format=tar", commit))) as archive:
            # Python 3.11.3 and older have no filters; the archive is git's own.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(temporary)  # noqa: S202
        then = Path(temporary).resolve()
        old = then / file.relative_to(top)
        if not old.is_file():
            raise InvalidArgumentError(
                f"revision {revision} does not have {path}. Name another revision, or another file"
            )
        folder = then / Path(root).resolve().relative_to(top) if root else pipelines_root(old, then)
        try:
            loaded = load_pipeline_file(old, environment, root=folder)
        except PipelineSpecError as error:
            found = [problem._replace(file=f"{revision}:{problem.file}") for problem in error.problems]
            raise PipelineSpecError(found) from None
        return build_plan(loaded.pipeline, environment, replace(loaded.source, folder=str(file.parent)))


def _git(folder: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)  # noqa: S607
    except OSError as error:
        raise InvalidArgumentError(
            f"--against requires git for a revision: {error}. Install git, or name a file"
        ) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or "there is no such revision"
        raise InvalidArgumentError(
            f"--against must be a file, or a branch, tag or commit of this repository; got none of them: {said}"
        )
    return done.stdout
