"""A real repository whose data is tracked by DVC, with a remote beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.support.git_server import Repository

FIRST = "a,b\n1,2\n3,4\n"


class DvcRepository(Repository):
    """A repository whose file ``data/train.csv`` and folder ``more`` are tracked by DVC, in a remote beside it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.remote = folder.with_name("remote")
        self._dvc("init")
        self._dvc("remote", "add", "--default", "store", str(self.remote))
        self.first = self.data(FIRST)

    def copy(self, folder: Path) -> DvcRepository:
        """Give another repository with the same history and a remote of its own, without the time that DVC takes."""
        other = object.__new__(DvcRepository)
        other.folder, other.remote, other.first = folder, folder.with_name("remote"), ""
        shutil.copytree(self.folder, folder)
        shutil.copytree(self.remote, other.remote)
        other.git("checkout", "--quiet", "-B", "main", self.first)
        other.first = other.move_remote(str(other.remote))
        return other

    def data(self, text: str) -> str:
        """Write, track, push and commit data; give the commit."""
        for path in (self.folder / "data/train.csv", self.folder / "more/part.csv"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        self._dvc("add", "data/train.csv", "more")
        self._dvc("push")
        return self._commit_all("data")

    def tag(self, name: str, commit: str) -> None:
        """Set a tag, also one that is set already."""
        self.git("tag", "--force", name, commit)

    def kept(self, commit: str, path: str) -> Path:
        """Give the object in the remote that holds the data of a path."""
        pointer = yaml.safe_load(self.git("show", f"{commit}:{path}.dvc"))
        digest = str(pointer["outs"][0]["md5"])
        return self.remote / "files/md5" / digest[:2] / digest[2:]

    def move_remote(self, url: str) -> str:
        """Say that the remote is at another address; give the commit."""
        config = self.folder / ".dvc/config"
        config.write_text(re.sub("url = .*", f"url = {url}", config.read_text()))
        return self._commit_all("remote")

    def _commit_all(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def _dvc(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "dvc", *arguments, "--quiet"], cwd=self.folder, check=True, capture_output=True
        )
