"""Builds the site: ``python docs/site/build.py OUTPUT``. The checkout is at the top, each release in its own folder.

A release is a tag ``v…`` that has a site. Every version has links to all others.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

CHECKOUT = "latest"
"""Name of the version that is not released; its pages are at the top of the site."""


def main(root: Path, output: Path) -> None:
    """Build every version.

    :param root: the repository.
    :param output: folder of the site; each release has a folder of the name of its tag in it.
    :raises SystemExit: when the pages of the checkout have a warning.
    """
    names = [CHECKOUT, *_releases(root)]
    output.mkdir(parents=True, exist_ok=True)
    (output / "versions.json").write_text(json.dumps(names) + "\n", encoding="utf-8")
    _build(root, output, _links(names, CHECKOUT), "--fail-on-warning", "--keep-going")
    for tag in names[1:]:
        with tempfile.TemporaryDirectory(prefix="airflow-mcp-docs-") as folder:
            archive = _git(root, "archive", "--format=tar", tag)
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                # Python 3.11.3 and older have no filters; the archive is git's own.
                tar.extraction_filter = getattr(tarfile, "data_filter", None)
                tar.extractall(folder)  # noqa: S202
            _build(Path(folder), output / tag, _links(names, tag))  # warnings of a release cannot be mended any more


def _releases(root: Path) -> list[str]:
    """Return the tags of releases that have a site, the newest first."""
    tags = _git(root, "tag", "--list", "v*", "--sort=-version:refname").decode().split()
    return [tag for tag in tags if _git(root, "ls-tree", "--name-only", tag, "docs/site/build.py")]


def _links(names: list[str], this: str) -> list[dict[str, Any]]:
    """Return where the first page of each version is, from the top folder of one of them."""
    up = "" if this == CHECKOUT else "../"
    return [
        {"name": name, "index": up + ("" if name == CHECKOUT else f"{name}/") + "index.html", "is_this": name == this}
        for name in names
    ]


def _build(root: Path, output: Path, versions: list[dict[str, Any]], *options: str) -> None:
    started = time.monotonic()
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fresh-env", *options, "--builder", "html"]
    with tempfile.TemporaryDirectory(prefix="airflow-mcp-docs-") as home:
        environment = {
            **os.environ,
            "AIRFLOW_HOME": home,
            "AIRFLOW_MCP_DOCS_VERSIONS": json.dumps(versions),
            "PYTHONPATH": str(root),  # each version documents its own code
        }
        done = subprocess.run(
            [*command, "--conf-dir", str(root / "docs" / "site"), str(root / "docs"), str(output)],
            env=environment,
            cwd=root,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"the pages of {root} could not be built; Sphinx ended with {done.returncode}")
    print(f"{output}: built in {time.monotonic() - started:.0f} s")


def _git(root: Path, *arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=root, check=True, stdout=subprocess.PIPE)  # noqa: S607
    return done.stdout


if __name__ == "__main__":
    main(Path(__file__).resolve().parents[2], Path(sys.argv[1]).resolve())
