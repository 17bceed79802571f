"""The paired bootstrap of accuracy and ROC AUC, next to ``scipy.stats.bootstrap`` on the same predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.fresh import print_table, run_fresh

pytestmark = pytest.mark.benchmark

ROWS, RESAMPLES = 100_000, 10_000
MEASURED = (
    ("ours", "accuracy", RESAMPLES),
    ("scipy", "accuracy", RESAMPLES),
    ("ours", "roc_auc", RESAMPLES),
    ("scipy", "roc_auc", RESAMPLES // 100),
)
"""Side, metric, resamples. SciPy's AUC gets a hundredth of the resamples; its time is multiplied by 100."""


def test_time_and_memory_of_the_paired_bootstrap(tmp_path: Path) -> None:
    rows = []
    for side, metric, resamples in MEASURED:
        arguments = ("-m", "tests.benchmarks.bootstrap", side, metric, str(ROWS), str(resamples))
        figures: dict[str, Any] = run_fresh(tmp_path / "cache", *arguments)
        scale = RESAMPLES // resamples
        low, high = figures["interval"]
        assert low < high
        rows.append(
            [
                f"{side}, {metric}" + (f" ({resamples} resamples, times {scale})" if scale > 1 else ""),
                f"{figures['wall'] * scale:.1f}",
                f"{figures['cpu'] * scale:.1f}",
                f"{figures['peak']:.0f}",
                f"{figures['grown']:.0f}",
                f"{low:+.5f} to {high:+.5f}",
            ]
        )
    head = ["bootstrap", "wall s", "CPU s", "peak MiB", "of it grown", "interval"]
    print_table(f"{RESAMPLES} resamples of {ROWS} rows", head, rows)
    assert len(rows) == len(MEASURED)
