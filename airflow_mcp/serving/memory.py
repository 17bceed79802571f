"""How much memory further versions can take: what the control group of the container leaves."""

from __future__ import annotations

from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def free_memory(group: Path = _GROUP) -> int | None:
    """Return the bytes that the container may still use; None when it has no limit, or none that can be read.

    Pages of files that the kernel can drop count as free.

    :param group: folder of the control group (version 2).
    """
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if not limit.isdigit():
        return None
    return max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
