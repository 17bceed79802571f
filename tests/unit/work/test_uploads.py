"""Uploaded models before they are logged: hostile archives, broken ONNX files."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.exceptions import EvidenceError, RefusedError
from airflow_mcp.work.models.archive import unpack_model
from airflow_mcp.work.models.onnx_model import wrap_onnx
from tests.support.onnx_files import linear_onnx

HOSTILE = "an <script>alert(1)</script>\\..\\ é 模型.bin"


def packed(write: Callable[[zipfile.ZipFile], None]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MLmodel", "flavors: {}\n")
        write(archive)
    return buffer.getvalue()


def link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("data/model.pkl")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, "/etc/passwd")


def named(name: str) -> Callable[[zipfile.ZipFile], None]:
    def write(archive: zipfile.ZipFile) -> None:
        entry = zipfile.ZipInfo("x")
        entry.filename = entry.orig_filename = name
        archive.writestr(entry, b"x")

    return write


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (named("../outside.txt"), "plain relative path"),
        (named("a/../../outside.txt"), "plain relative path"),
        (named("/etc/cron.d/x"), "plain relative path"),
        (named("C:/windows/x"), "plain relative path"),
        (named(HOSTILE), "plain relative path"),
        (named("mlmodel"), "twice"),
        (link, "regular file"),
        (lambda archive: archive.writestr("zeros", b"\0" * 4_000_000), "when it is unpacked"),
    ],
    ids=["up", "up-later", "absolute", "drive", "hostile", "twice", "link", "bomb"],
)
def test_an_archive_that_would_leave_its_folder_or_grow_is_refused(
    tmp_path: Path, write: Callable[[zipfile.ZipFile], None], said: str
) -> None:
    file, folder = tmp_path / "model.zip", tmp_path / "in" / "model"
    file.write_bytes(packed(write))
    folder.mkdir(parents=True)
    with pytest.raises(EvidenceError, match=said):
        unpack_model(file, folder, max_bytes=1_000_000)
    assert not (tmp_path / "outside.txt").exists()
    assert not (tmp_path / "in" / "outside.txt").exists()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 1_000_000


@pytest.mark.parametrize(
    ("make", "said"),
    [
        ({"external": True}, "its weights are in other files"),
        ({"kind": "STRING"}, "must hold numbers or booleans; got STRING"),
        ({"example": {"y": [[1.0, 2.0]]}}, "must have the inputs x; got y"),
        ({"example": {"x": [1.0, 2.0]}}, "must be float32 of shape nx2"),
        ({"example": {"x": [["a", "b"]]}}, "must be float32 of shape nx2"),
    ],
    ids=["external-weights", "text", "wrong-name", "wrong-shape", "wrong-type"],
)
def test_an_onnx_file_that_cannot_be_checked_is_refused(tmp_path: Path, make: dict[str, Any], said: str) -> None:
    example = make.pop("example", None)
    file = tmp_path / "model.onnx"
    file.write_bytes(linear_onnx(**make))
    with pytest.raises(RefusedError, match=said):
        wrap_onnx(file, tmp_path / "model", example)


def test_bytes_that_are_no_model_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "upload"
    file.write_bytes(b"PK\x03\x04 neither an archive nor a model")
    with pytest.raises(EvidenceError, match="cannot be read as a ZIP file"):
        unpack_model(file, tmp_path, max_bytes=1_000_000)
    with pytest.raises(EvidenceError, match="the ONNX file was refused: it cannot be read"):
        wrap_onnx(file, tmp_path / "model", None)


def test_an_archive_without_a_model_is_refused(tmp_path: Path) -> None:
    file, folder = tmp_path / "model.zip", tmp_path / "model"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/readme.txt", "no model")
        archive.writestr("b/MLmodel", "flavors: {}")
    folder.mkdir()
    with pytest.raises(EvidenceError, match="must have a file MLmodel"):
        unpack_model(file, folder, max_bytes=1_000_000)
