"""Quality estimated without labels, next to NannyML's CBPE on the same data and to what the labels show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.estimates import METRICS, ROWS
from tests.benchmarks.fresh import print_table, run_fresh
from tests.benchmarks.serving.contenders import HOW_TO_GET_PEERS, PEERS

pytestmark = pytest.mark.benchmark
NANNYML = PEERS / "nannyml" / "bin" / "python"
FURTHEST_APART = 0.005


@pytest.mark.skipif(not NANNYML.exists(), reason=f"NannyML is missing: {HOW_TO_GET_PEERS}")
def test_an_estimate_is_that_of_nannyml_and_near_what_labels_show(tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def run(side: str, python: str = "") -> dict[str, float]:
        found: dict[str, float] = run_fresh(
            cache, "-m", "tests.benchmarks.estimates", side, str(tmp_path), **({"python": python} if python else {})
        )
        return found

    measured = run("make")["estimated"]
    run("ours")  # compiles byte code
    ours, theirs = run("ours"), run("nannyml", str(NANNYML))
    rows = [
        [name, *(f"{each[name]:.4f}" for each in (measured, ours["estimated"], theirs["estimated"]))]
        for name in METRICS
    ]
    print_table(f"{ROWS['current']:,} predictions", ["metric", "measured later", "ours", "NannyML's CBPE"], rows)
    costs = [
        [name, *(f"{each[what]:.1f}" for what in ("wall", "cpu", "peak"))]
        for name, each in (("ours", ours), ("NannyML", theirs))
    ]
    print_table("with imports", ["", "wall s", "CPU s", "peak MiB"], costs)
    for name in METRICS:
        assert ours["estimated"][name] == pytest.approx(theirs["estimated"][name], abs=FURTHEST_APART), name
        assert ours["estimated"][name] == pytest.approx(measured[name], abs=FURTHEST_APART), name
