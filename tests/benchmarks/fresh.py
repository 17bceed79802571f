"""Fresh interpreters for measurements: no modules loaded, byte code compiled as in an installed package."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT


def run_fresh(cache: Path, *arguments: str, timeout: int = 900, python: str = sys.executable) -> Any:
    """Run Python with these arguments and return the JSON on the last line of its output.

    :param cache: folder for compiled byte code; the first run with it is a warm-up and not to be measured.
    :param timeout: seconds after which it is stopped.
    :param python: interpreter; that of a peer has an environment of its own.
    """
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [python, "-W", "ignore", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**env, "PYTHONPYCACHEPREFIX": str(cache)},
        timeout=timeout,
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def median(values: Sequence[float]) -> float:
    """Return the median; raise an error if there are no numbers."""
    assert values
    return statistics.median(values)


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown, for docs/benchmarks.md."""
    print(f"\n\n{title} ({os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f})\n")
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")
