"""Unpacks an uploaded archive: regular files below one folder, counted while they are written."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path, PurePosixPath

from airflow_mcp.core.registry.publishing import MAX_FILES
from airflow_mcp.exceptions import EvidenceError

_CHUNK = 1 << 20
_ENCRYPTED = 0x1
_REFUSED = "the archive was refused: {problem}. Nothing was registered"


def unpack_model(archive: Path, folder: Path, max_bytes: int) -> Path:
    """Unpack a model in MLflow's format and return the folder with its MLmodel.

    No file of the model is opened or loaded here. Sizes in an archive's index can lie, so the bytes are counted.

    :param archive: ZIP file.
    :param folder: empty folder to unpack into.
    :param max_bytes: bytes of all files together.
    :raises EvidenceError: when it is not a ZIP file, holds anything but regular files with plain relative names, has
        too many files or bytes, or holds no model.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            if len(entries) > MAX_FILES:
                raise _refused(f"it must have at most {MAX_FILES} files; got {len(entries)}")
            left, seen = max_bytes, set[str]()
            for entry in entries:
                path = _checked_path(entry)
                if path.lower() in seen:
                    raise _refused(f"it has {path!r} twice")
                seen.add(path.lower())
                left = _write(opened, entry, folder / path, left, max_bytes)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, OSError, EOFError, ValueError) as error:
        raise _refused(f"it cannot be read as a ZIP file ({type(error).__name__}: {error})") from None
    return _model_folder(folder)


def _refused(problem: str) -> EvidenceError:
    return EvidenceError(_REFUSED.format(problem=problem))


def _checked_path(entry: zipfile.ZipInfo) -> str:
    """Return the relative path of an entry, which cannot leave the folder."""
    # The name as it was written: ZipFile itself cuts it at a NUL and turns backslashes into slashes on Windows.
    name = entry.orig_filename
    parts = PurePosixPath(name).parts
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise _refused(f"{name!r} must be a regular file; got a link or a device")
    if entry.flag_bits & _ENCRYPTED:
        raise _refused(f"{name!r} is encrypted")
    if not parts or not name.isprintable() or "\\" in name or ":" in name or name.startswith("/") or ".." in parts:
        raise _refused(f"a name in it must be a plain relative path with forward slashes; got {name!r}")
    return "/".join(parts)


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int, max_bytes: int) -> int:
    """Write one file and return how many bytes the others may have."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(entry) as source, target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise _refused(f"it must have at most {max_bytes} bytes when it is unpacked; got more")
            file.write(chunk)
    return left


def _model_folder(folder: Path) -> Path:
    """Return the folder that holds the MLmodel: the root of the archive, or its only folder."""
    if not (folder / "MLmodel").is_file():
        found = list(folder.iterdir())
        folder = found[0] if len(found) == 1 and found[0].is_dir() else folder
    if not (folder / "MLmodel").is_file():
        raise _refused("it must have a file MLmodel at its root or in its only folder; got none")
    return folder
