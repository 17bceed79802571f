"""Whose fault it is when a model does not load: its own, or that of the image, the machine, the network.

A model records what it needs (``requirements.txt``, and the version of Python). Where that is not what is here, or the
error is of a kind that no model can help, its failure says nothing about it.
"""

from __future__ import annotations

import errno
import importlib.util
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

_NOT_THE_FILES = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE),
)
"""Errors of the system that come from the machine: no room, no right, a broken disk, too many open files."""
_OF_THE_MACHINE = re.compile(r"\bCUDA\b|cannot open shared object file|out of memory|cannot allocate memory", re.I)


def is_of_surroundings(error: BaseException) -> bool:
    """Say whether an error, or one that led to it, comes from outside the model whatever its libraries.

    :param error: what loading or asking the model raised.
    """
    return any(_is_outside(each) for each in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            yield found
            waiting += [found.__cause__, None if found.__suppress_context__ else found.__context__]


def _is_outside(error: BaseException) -> bool:
    from urllib.error import URLError  # noqa: PLC0415

    from requests.exceptions import RequestException  # noqa: PLC0415

    if isinstance(error, ModuleNotFoundError):
        return _is_not_installed(error.name)
    if isinstance(error, MemoryError | ConnectionError | TimeoutError | URLError | RequestException):
        return True
    if isinstance(error, OSError) and error.errno in _NOT_THE_FILES:
        return True
    return isinstance(error, ImportError | OSError | RuntimeError) and bool(_OF_THE_MACHINE.search(str(error)))


def _is_not_installed(module: str | None) -> bool:
    """Say whether the package of a module is missing altogether; a part that is missing is another version's."""
    package = (module or "").partition(".")[0]
    try:
        return not package or importlib.util.find_spec(package) is None
    except (ImportError, ValueError):
        return True


def unmet_requirements(folder: Path) -> tuple[str, ...]:
    """Compare what a model records that it needs with what is here.

    :param folder: the model's files.
    :return: a sentence for each library, and for Python, that is another one or is missing. Lines of the model's
        ``requirements.txt`` that name no distribution (URLs, options, files) are left out: nobody knows.
    """
    found = [_unmet(requirement) for requirement in _requirements(folder)]
    needed, here = _recorded_python(folder), platform.python_version()
    if needed and needed.split(".")[:2] != here.split(".")[:2]:
        found.append(f"python {needed} is needed, {here} is here")
    return tuple(each for each in found if each)


def required_libraries(folder: Path) -> tuple[str, ...]:
    """Name the distributions that a model records that it needs.

    :param folder: the model's files.
    """
    return tuple(requirement.name for requirement in _requirements(folder))


def _requirements(folder: Path) -> Iterator[Any]:
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415

    try:
        lines = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        text = line.partition(" #")[0].strip()
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.url is None and (requirement.marker is None or requirement.marker.evaluate()):
            yield requirement


def _unmet(requirement: Any) -> str:
    try:
        here = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement} is needed and not installed"
    if requirement.specifier.contains(here, prereleases=True):
        return ""
    return f"{requirement.name}{requirement.specifier} is needed, {here} is here"


def _recorded_python(folder: Path) -> str:
    from mlflow.models import Model  # noqa: PLC0415

    try:
        flavors = Model.load(str(folder)).flavors
    except Exception:  # an MLmodel that cannot be read: loading the model will say so
        return ""
    return str(flavors.get("python_function", {}).get("python_version") or "")
