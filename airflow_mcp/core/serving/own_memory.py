"""The environment and memory of this process, closed to other processes of the same user."""

from __future__ import annotations

import logging
import sys

_log = logging.getLogger(__name__)
_PR_SET_DUMPABLE = 4


def close_to_same_user() -> bool:
    """Make ``/proc/PID/environ``, ``mem`` and ``fd`` of this process unreadable to its user, and forbid ``ptrace``.

    Model processes run as the same user and run code of their own, so they could read credentials there. Only Linux
    has this; root is not bound by it. The next program that this process executes is readable again.

    :return: whether it was done.
    """
    if not sys.platform.startswith("linux"):
        return False
    is_closed = prctl(_PR_SET_DUMPABLE, 0)
    if not is_closed:
        _log.warning("models can read the environment of this process: prctl(PR_SET_DUMPABLE) cannot be called here")
    return is_closed


def prctl(option: int, value: int) -> bool:
    """Set an option of this process with Linux's ``prctl``.

    :param option: its number in ``linux/prctl.h``.
    :param value: its value.
    :return: whether it was set; False where ``prctl`` cannot be called.
    """
    try:
        import ctypes  # noqa: PLC0415  (some builds of Python have no ctypes)

        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False
