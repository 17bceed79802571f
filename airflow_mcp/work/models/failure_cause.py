"""Why a model failed to load or answer: the model itself, or the image, the machine or the network.

A model records what it requires (``requirements.txt`` and the version of Python). If the environment does not meet
that, or the error is about code that the model neither records nor contains, or it is of a kind that no model can
cause, the failure says nothing about the model.
"""

from __future__ import annotations

import errno
import importlib.util
import platform
import re
import sys
import traceback
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from airflow_mcp.work.run.mlflow_run import redacted

_ERRORS_OF_THE_MACHINE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE),
)
"""System errors that the machine causes: no permission, no space, a broken disk, too many open files."""
_TEXTS_OF_THE_MACHINE = re.compile(
    r"\bCUDA\b|cannot open shared object file|out of memory|cannot allocate memory", re.I
)
_OF_SIGNATURE = "Failed to enforce schema"
"""Begins MLflow's message about inputs that do not fit the signature; the inputs follow."""
_REASONS_OF_SIGNATURE = re.compile(
    r"(Incompatible input types for column|Model is missing inputs|Please ensure that the input data of datetime column"
    r"|Failed to convert column|The input column|Shape of input|Expected input to be) .*?(?=\. Error:|$)",
    re.S,
)
"""The messages that name columns, types and shapes, but no values."""
_OPTION = re.compile(r"\s+--?[A-Za-z].*")
"""Options after a requirement, such as ``--hash=sha256:…``."""
_COMMENT = re.compile(r"(^|\s)#.*")
_OTHER_FILE = re.compile(r"(-r|-c|--requirement|--constraint)[\s=]*(\S+)")
_MAX_DEPTH = 5
"""Files that include each other must not be read for ever."""
_NOT_IN_MODULE = re.compile(r"Can't get attribute '.*' on <module '([\w.]+)'")
"""Message of ``pickle`` for a class or function that its module does not have."""


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


def needs_unrecorded_code(error: BaseException, folder: Path) -> bool:
    """Return whether a module lacks something, and the model does not record the module.

    Then nothing says which version of the module the model needs: its requirements do not name it, and its files do
    not contain it.

    :param error: error of loading the model or of predicting with it.
    :param folder: the model's files.
    """
    packages = {module.partition(".")[0] for each in _chain(error) for module in [_incomplete_module(each)] if module}
    return any(_is_unrecorded(package, folder) for package in packages - sys.stdlib_module_names)


def _incomplete_module(error: BaseException) -> str:
    """Return the module in which an import or ``pickle`` did not find something; empty for another error.

    What the training script itself defined (``__main__``) is nowhere else, so it is the model's own fault.
    """
    if isinstance(error, ImportError):
        return error.name or ""
    found = _NOT_IN_MODULE.search(str(error)) if isinstance(error, AttributeError) else None
    return found[1] if found and not found[1].endswith("__main__") else ""


def _is_unrecorded(package: str, folder: Path) -> bool:
    from packaging.utils import canonicalize_name  # noqa: PLC0415

    if any(path.stem == package for path in (folder / "code").rglob("*")):
        return False
    recorded = {canonicalize_name(name) for name in required_libraries(folder)}
    installed = metadata.packages_distributions().get(package, [])
    return recorded.isdisjoint(canonicalize_name(name) for name in installed)


def is_of_signature(error: BaseException) -> bool:
    """Return whether MLflow refused inputs because they do not fit the signature of the model."""
    return _OF_SIGNATURE in str(error)


def described(error: BaseException, limit: int = 600) -> str:
    """Return an error of a model as one line: its type and message, without the inputs that MLflow puts into its own.

    :param error: error of loading the model or of predicting with it.
    :param limit: largest number of characters of the message.
    """
    if not is_of_signature(error):
        return f"{type(error).__name__}: {redacted(error, limit)}"
    reason = _REASONS_OF_SIGNATURE.search(str(error))
    return "the input does not fit the signature" + (f": {redacted(reason[0], limit)}" if reason else "")


def where_raised(error: BaseException) -> str:
    """Return an error as its type and place. Its message may quote inputs, and evidence must not.

    :param error: error of predicting with a model.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def unmet_requirements(folder: Path) -> tuple[str, ...]:
    """Compare the recorded requirements of a model with this environment.

    :param folder: the model's files.
    :return: one text per library, and for Python, that is missing or has another version. Lines of
        ``requirements.txt`` that do not name a distribution (URLs, options, files) are ignored.
    """
    found = [_unmet(requirement) for requirement in _requirements(folder / "requirements.txt")]
    needed, here = _recorded_python(folder), platform.python_version()
    if needed and needed.split(".")[:2] != here.split(".")[:2]:
        found.append(f"python {needed} is required, {here} is installed")
    return tuple(each for each in dict.fromkeys(found) if each)


def required_libraries(folder: Path) -> tuple[str, ...]:
    """Return the distributions in the recorded requirements of a model.

    :param folder: the model's files.
    """
    return tuple(dict.fromkeys(requirement.name for requirement in _requirements(folder / "requirements.txt")))


def _requirements(file: Path, depth: int = 0) -> Iterator[Any]:
    """Read the requirements of a file, and of the files of the model that it includes."""
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415

    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return
    for line in text.replace("\\\n", " ").splitlines():
        written = _COMMENT.sub("", line).strip()
        other = _OTHER_FILE.fullmatch(written)
        if other and depth < _MAX_DEPTH:
            further = _requirements(file.parent / other[2], depth + 1)
            # A constraint says nothing about a distribution that is not installed.
            yield from (
                each for each in further if other[1] in ("-r", "--requirement") or _version(each.name) is not None
            )
        try:
            requirement = Requirement(_OPTION.sub("", written))
        except InvalidRequirement:
            continue
        if requirement.url is None and (requirement.marker is None or requirement.marker.evaluate()):
            yield requirement


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _unmet(requirement: Any) -> str:
    here = _version(requirement.name)
    if here is None:
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
