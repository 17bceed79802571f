"""Resident memory of this process, now and at most, as Linux counts it."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")


def present_memory() -> int | None:
    """Give the resident memory of this process in bytes; None where the system does not tell."""
    return _read("VmRSS")


def peak_memory() -> int | None:
    """Give the most resident memory that this process has had, in bytes; None where the system does not tell.

    ``getrusage`` would give that of whoever started the process when it was more: the kernel hands it on over ``exec``.
    """
    read = [size for size in (_read("VmHWM"), _read("VmRSS")) if size is not None]
    return max(read, default=None)  # the kernel counts by thread and adds up late: the peak may lag behind


def _read(name: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    kibibytes = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return next((int(number) * 1024 for number in kibibytes), None)
