"""This process: its CPUs, its memory and the versions of its libraries."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib import metadata
from pathlib import Path

_STATUS = Path("/proc/self/status")
_LIBRARIES = ("mlflow", "scikit-learn", "pandas", "numpy")
"""Distributions on which the result of any step can depend."""


def cpu_count() -> int:
    """Return the number of CPUs that this process may use, which may be fewer than the machine has.

    Workers of Spark and Dask say by ``OMP_NUM_THREADS`` how many belong to one of the tasks that run side by side.
    """
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(mine, int(given)) if given.isdecimal() and int(given) else mine


def present_memory() -> int | None:
    """Return the resident memory in bytes; None where the system is not Linux."""
    return _memory("VmRSS")


def peak_memory() -> int | None:
    """Return the largest resident memory so far, in bytes; None where the system is not Linux.

    ``getrusage`` would return the peak of the parent process if that was larger, because it survives ``exec``.
    """
    # The kernel adds up the counters of threads late, so the recorded peak may be below the present size.
    read = [size for size in (_memory("VmHWM"), _memory("VmRSS")) if size is not None]
    return max(read, default=None)


def library_versions(*more: str) -> dict[str, str]:
    """Return the versions of Python and of the libraries on which a result depends.

    :param more: further distribution names. Distributions that are not installed are left out.
    """
    versions = {"python": platform.python_version()}
    for name in (*_LIBRARIES, *more):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _memory(name: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    kibibytes = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return next((int(number) * 1024 for number in kibibytes), None)
