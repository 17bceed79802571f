"""1,000 rollouts from start to end by a simulated clock: each one is decided once, whoever dies or looks twice."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from airflow_mcp.core.document import dump_document
from airflow_mcp.core.rollout.advance import Abort, Action, Finish, Promote, Wait, Write, failed_document, next_action
from airflow_mcp.core.rollout.state import RolloutRecord
from tests.benchmarks.fresh import print_table
from tests.unit.core.rollout.test_advance import BEGIN, LOOK, Replica, Simulation

pytestmark = pytest.mark.benchmark

ROLLOUTS = int(os.environ.get("AIRFLOW_MCP_TEST_ROLLOUTS", "1000"))
STEPS = [{"setWeight": 10}, {"analysis": "2m"}, {"setWeight": 50}, {"analysis": "2m"}]
PLAN = {"steps": STEPS, "on_inconclusive": "abort"}
LONGEST = timedelta(hours=6)
KILLED, TWICE, RESTARTED = 0.1, 0.2, 0.02
"""Shares of looks: the process is killed before it writes; two processes look at once; a replica begins anew."""


@dataclass
class Stored(Simulation):
    """A simulation whose registry takes a write only from somebody who has read what is there now."""

    fate: str = "sound"
    """``sound``, ``broken``: the canary fails, ``silent``: its metrics are gone from some look on."""
    written: list[tuple[int, str, float]] = field(default_factory=list)
    """Step, phase and weight of every write that was taken."""
    refused: int = 0
    ends: list[Action] = field(default_factory=list)
    """What ended it: a promotion or a write that gives all requests back."""
    finish: Finish | None = None
    looks: int = 0

    def go_on(self, draw: random.Random) -> None:
        """Look once, by one process or by two, and write what they decide unless they are killed."""
        self.looks += 1
        if draw.random() < RESTARTED:
            draw.choice(self.replicas).restart()
        self.source_is_silent = self.fate == "silent" and self.looks > 5
        seen = self.document.generation if self.document is not None else 0
        decided = [self.look()]
        if draw.random() < TWICE:
            decided.append(next_action(self.journal, self.state, self.now))
        for action in decided:
            if draw.random() >= KILLED:
                self.take(action, seen)
        self.now += LOOK

    def take(self, action: Action, seen: int) -> None:
        """Do what was decided, as the registry would: compare and set."""
        if isinstance(action, Finish):
            self.finish = self.finish or action
        elif not isinstance(action, Wait):
            self._write(action, seen)

    def _write(self, action: Action, seen: int) -> None:
        if self.document is None or self.document.generation != seen or self.champion != "7":
            self.refused += 1
        elif isinstance(action, Promote):
            self.champion, self.ends = "8", [*self.ends, action]
            self.record = RolloutRecord(phase="SUCCEEDED", stable="7", since=self.now, reason="promoted")
        elif isinstance(action, Write | Abort):
            wanted = action.document if isinstance(action, Write) else None
            if isinstance(action, Abort):
                wanted = failed_document(self.document, action.cause, action.reason, "dag.task")
                self.ends.append(action)
            assert wanted is not None
            self.write(wanted)
            self.written.append((wanted.step, wanted.phase, wanted.weight))
        else:
            raise AssertionError(f"a plan without a bake time decided {action}")


def begin(number: int, draw: random.Random) -> Stored:
    fate = draw.choices(("sound", "broken", "silent"), (6, 3, 1))[0]
    errors = 0.3 if fate == "broken" else 0.0
    replicas = [Replica(f"{number}-{each}", canary_errors=errors) for each in range(draw.randint(1, 4))]
    return Stored(plan=PLAN, replicas=replicas, fate=fate)


def test_a_thousand_rollouts_are_each_decided_once() -> None:
    draw = random.Random(20261130)
    rollouts = [begin(number, draw) for number in range(ROLLOUTS)]
    cpu = time.process_time()
    left = list(rollouts)
    while left and left[0].now < BEGIN + LONGEST:
        for rollout in left:
            rollout.go_on(draw)
        left = [rollout for rollout in left if rollout.finish is None]
    cpu = time.process_time() - cpu
    assert left == []  # none is lost
    for rollout in rollouts:
        assert rollout.finish is not None
        assert len(rollout.ends) == 1  # none is decided twice
        assert rollout.finish.succeeded is (rollout.champion == "8") is (rollout.fate == "sound")
        assert rollout.document is not None
        assert rollout.document.generation == 1 + len(rollout.written)
        assert len(set(rollout.written)) == len(rollout.written)  # no step is taken twice
        assert [step for step, _, _ in rollout.written] == sorted(step for step, _, _ in rollout.written)
        assert rollout.champion == "8" or rollout.document.weight == 0
        assert len(dump_document(rollout.journal)) < 100_000
    looks, refused = sum(rollout.looks for rollout in rollouts), sum(rollout.refused for rollout in rollouts)
    fates = Counter(rollout.fate for rollout in rollouts)
    assert refused > 0
    given_back = fates["broken"] + fates["silent"]
    row = [f"{count:,}" for count in (ROLLOUTS, fates["sound"], given_back, looks, refused)]
    head = ["rollouts", "promoted", "given back", "looks", "second writes refused", "CPU ms per look"]
    print_table("Rollouts from start to end", head, [[*row, f"{cpu / looks * 1000:.2f}"]])
