"""Pin a version of the data for a whole Dag run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mcp.core.dataset import LATEST, choose_version
from airflow_mcp.core.identity import fingerprint
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError
from airflow_mcp.operators.base import ModelControlOperator, required_text

if TYPE_CHECKING:
    from airflow.sdk import Context

_CHUNK = 1024 * 1024
_RESERVED = ("version", "hash", "return_value")


class PinDatasetOperator(ModelControlOperator):
    """Choose a version of a dataset and pin each of its files by hash, once for all later tasks.

    Versions are folders: ``<root>/<version>/<file>``, on a disk that the worker can read.

    XCom: ``version``; ``hash`` of the whole version; and one mapping ``{uri, version, hash}`` for each name in
    ``files``, ready to be handed to the other operators (``pin.output["train"]``).

    :param root: folder of the versions (templated).
    :param files: name in XCom to file name within the version's folder (templated).
    :param version: a version's name, or ``latest`` (templated).
    """

    template_fields: Sequence[str] = ("root", "files", "version")
    ui_color = "#e8f0fe"

    def __init__(self, *, root: str, files: Mapping[str, str], version: str = LATEST, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.files = files
        self.version = version

    def act(self, context: Context) -> dict[str, Any]:
        """Choose the version and hash its files.

        :raises InvalidArgumentError: when an argument is wrong.
        :raises DatasetError: when version or file is missing, empty or unreadable.
        """
        root = Path(required_text("root", self.root))
        if not root.is_dir():
            raise DatasetError(f"root {str(root)!r} is not a folder that this worker can read")
        if not self.files or (reserved := sorted(self.files.keys() & set(_RESERVED))):
            raise InvalidArgumentError(
                f"files is {self.files!r}; allowed: at least one name, and none of {', '.join(_RESERVED)}"
                + (f" (found {', '.join(reserved)})" if self.files else "")
            )
        version = choose_version(
            required_text("version", self.version),
            (path.name for path in root.iterdir() if path.is_dir()),
            root=str(root),
        )
        pins = {
            name: {"uri": str(root / version / file), "version": version, "hash": _hash_file(root / version / file)}
            for name, file in self.files.items()
        }
        whole = f"sha256:{fingerprint({name: pin['hash'] for name, pin in pins.items()})}"
        self.log.info("Data version %s of %s pinned: %s", version, root, whole)
        for name, pin in pins.items():
            self.log.info("  %s: %s %s", name, pin["uri"], pin["hash"])
        return {"version": version, "hash": whole, **pins}


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            if file.tell() == 0:
                raise DatasetError(f"data file {path} is empty; nothing was pinned")
    except OSError as error:
        raise DatasetError(f"data file {path} cannot be read: {error.strerror}; nothing was pinned") from None
    return f"sha256:{digest.hexdigest()}"
