"""One measured verification of an export in an interpreter of its own.

``python -m tests.benchmarks.audit FILE [deep|decisions]``
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from airflow_mcp.core.audit.verify import verify
from airflow_mcp.core.conformity.moves import MoveCheck


def main(file: str, how: str = "") -> None:
    """Verify, and print records, CPU seconds and the peak of memory in MiB."""
    before = time.process_time()
    with Path(file).open("rb") as lines:
        moves = MoveCheck() if how == "decisions" else None
        found = verify(moves.watched(lines) if moves else lines, deep=how == "deep")
    assert found.is_whole, found.problem
    seconds = time.process_time() - before
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"records": found.records, "cpu": seconds, "mib": peak / 1024}))


if __name__ == "__main__":
    main(*sys.argv[1:])
