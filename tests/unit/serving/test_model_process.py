"""The processes of models as the front starts them."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import pytest

from airflow_mcp.serving.model_process import Loader, model_environment
from airflow_mcp.serving.pool import PoolStartError

SHOWS_HOME = """
import json, os, pathlib, socket, sys

home = pathlib.Path(os.environ["HOME"])
(home / "cache").write_text("written by a model")
text = f"HOME is {home} and held {len(list(home.iterdir())) - 1} files"
socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1])).send(
    json.dumps({"event": "failed", "message": text}).encode() + b"\\n"
)
"""


def test_models_see_neither_the_home_of_the_server_nor_its_credentials() -> None:
    environment = {"HOME": "/home/ann", "PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "HF_HOME": "/cache"}
    seen = model_environment(environment, ("HF_HOME",))
    assert {name: seen.get(name) for name in environment} == {
        "HOME": None,
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": None,
        "HF_HOME": "/cache",
    }
    assert model_environment(environment, ("HOME",))["HOME"] == "/home/ann"


def test_each_loader_has_an_empty_home_that_is_removed_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "code" / "airflow_mcp" / "work"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package.parent / "__init__.py").touch()
    (package / "__main__.py").write_text(SHOWS_HOME, encoding="utf-8")
    homes = tmp_path / "homes"
    homes.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(homes))

    async def load() -> str:
        environment = {**os.environ, "PYTHONPATH": str(package.parent.parent), "PYTHONSAFEPATH": "1"}
        environment.pop("HOME", None)
        loader = Loader("fraud/1", tmp_path, environment, lambda: None)
        try:
            with pytest.raises(PoolStartError) as raised:
                await loader.start()
            assert len(list(homes.iterdir())) == 1
        finally:
            await loader.stop()
        return str(raised.value)

    said = asyncio.run(load())
    assert said.startswith(f"HOME is {homes}/")
    assert said.endswith("and held 0 files")
    assert list(homes.iterdir()) == []
