"""Why a model failed to load or answer: the model itself, or the image, the machine or the network.

A model records what it requires (``requirements.txt`` and the version of Python). If the environment does not meet
that, or the error is of a kind that no model can cause, the failure says nothing about the model.
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

_ERRORS_OF_THE_MACHINE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE),
)
"""System errors that the machine causes: no permission, no space, a broken disk, too many open files."""
_TEXTS_OF_THE_MACHINE = re.compile(
    r"\bCUDA\b|cannot open shared object file|out of memory|cannot allocate memory", re.I
)


def is_environment_failure(error: BaseException) -> bool:
    """Return whether an error, or one of its causes, comes from outside the model, whatever the libraries.

    :param error: error of loading the model or of predicting with it.
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
    if isinstance(error, OSError) and error.errno in _ERRORS_OF_THE_MACHINE:
        return True
    return isinstance(error, ImportError | OSError | RuntimeError) and bool(_TEXTS_OF_THE_MACHINE.search(str(error)))


def _is_not_installed(module: str | None) -> bool:
    """Return whether a whole package is missing; a missing part of a package belongs to another version of it."""
    package = (module or "").partition(".")[0]
    try:
        return not package or importlib.util.find_spec(package) is None
    except (ImportError, ValueError):
        return True


def unmet_requirements(folder: Path) -> tuple[str, ...]:
    """Compare the recorded requirements of a model with this environment.

    :param folder: the model's files.
    :return: one text per library, and for Python, that is missing or has another version. Lines of
        ``requirements.txt`` that do not name a distribution (URLs, options, files) are ignored.
    """
    found = [_unmet(requirement) for requirement in _requirements(folder)]
    needed, here = _recorded_python(folder), platform.python_version()
    if needed and needed.split(".")[:2] != here.split(".")[:2]:
        found.append(f"python {needed} is required, {here} is installed")
    return tuple(each for each in found if each)


def required_libraries(folder: Path) -> tuple[str, ...]:
    """Return the distributions in the recorded requirements of a model.

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
        return f"{requirement} is required and not installed"
    if requirement.specifier.contains(here, prereleases=True):
        return ""
    return f"{requirement.name}{requirement.specifier} is required, {here} is installed"


def _recorded_python(folder: Path) -> str:
    from mlflow.models import Model  # noqa: PLC0415

    try:
        flavors = Model.load(str(folder)).flavors
    except Exception:  # an MLmodel file that cannot be read: loading the model will report it
        return ""
    return str(flavors.get("python_function", {}).get("python_version") or "")
