"""Fixtures of unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pipeline_files import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a file below ``tmp_path``, with its folders."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write
