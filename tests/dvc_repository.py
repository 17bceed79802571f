"""A real repository whose data is tracked by DVC, with a remote beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.git_server import Repository

FIRST = "a,b\n1,2\n3,4\n"


class DvcRepository(Repository):
    """A repository whose file ``data/train.csv`` and folder ``more`` are tracked by DVC, in a remote beside it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.remote = folder.with_name("remote")
        self._dvc("init")
        self._dvc("remote", "add", "--default", "store", str(self.remote))
        self.first = self.data(FIRST)

    def data(self, text: str) -> str:
        """Write, track, push and commit data; give the commit."""
        for path in (self.folder / "data/train.csv", self.folder / "more/part.csv"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        self._dvc("add", "data/train.csv", "more")
        self._dvc("push")
        return self._commit_all("data")

    def move_remote(self, url: str) -> str:
        """Say that the remote is at another address; give the commit."""
        self._dvc("remote", "modify", "store", "url", url)
        return self._commit_all("remote")

    def _commit_all(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def _dvc(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "dvc", *arguments, "--quiet"], cwd=self.folder, check=True, capture_output=True
        )
