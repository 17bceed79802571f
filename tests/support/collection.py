"""Pytest plugin that makes collection cheap: what every worker of pytest-xdist would do again is done once, before.

Each worker collects all tests. Without this plugin each rewrites the assertions of all files too, in a fresh checkout
or where ``PYTHONDONTWRITEBYTECODE`` is set: 17 s of CPU, against 9 s for the rest of the collection.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from _pytest.assertion import rewrite  # private: pytest offers no way to fill its cache without importing the tests


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Rewrite the assertions of all test files, in the controller of pytest-xdist: its workers start after this."""
    config = session.config
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        for file in files_to_rewrite(config.args):
            keep_rewritten(file, config)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without the garbage collector, which would look at hundreds of thousands of new objects again and again.

    None of them is garbage, so it never looks at them afterwards either.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def files_to_rewrite(arguments: Iterable[str]) -> Iterator[Path]:
    """Find the files whose assertions pytest rewrites.

    :param arguments: files, folders and node ids, as on pytest's command line.
    """
    for argument in arguments:
        path = Path(argument.partition("::")[0])
        if path.is_dir():
            yield from sorted({*path.rglob("test_*.py"), *path.rglob("conftest.py")})
        elif path.is_file():
            yield path


def keep_rewritten(file: Path, config: pytest.Config) -> None:
    """Write the file's rewritten code where pytest looks for it, unless it is there; also when no bytecode is written.

    A file with a mistake of syntax is left to the workers, which report it.
    """
    source = file.absolute()
    folder = rewrite.get_cache_dir(source)
    kept = folder / (source.stem + rewrite.PYC_TAIL)
    if rewrite._read_pyc(source, kept) is not None or not rewrite.try_makedirs(folder):
        return
    try:
        version, code = rewrite._rewrite_test(source, config)
    except SyntaxError:
        return
    rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, version, kept)
