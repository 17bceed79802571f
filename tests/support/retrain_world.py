"""A month in the life of one model, simulated: drift in bursts, clocks that jump, tasks that are killed anywhere.

The world keeps its own books, from what really happened, and raises :class:`RuleBrokenError` when a rule is broken.
It knows nothing of how the ledger decides.
"""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from airflow_mcp.core.identity import content_hash
from airflow_mcp.core.retrain import ledger as ledgers
from airflow_mcp.core.retrain.documents import (
    CONCLUSIVE,
    LEDGER_KEY,
    Observation,
    OpenRun,
    RetrainDecision,
    TrainingOutcome,
    WindowVerdict,
)
from airflow_mcp.core.retrain.policy import RetrainPolicy
from airflow_mcp.registry.retrain_ledger import RetrainLedger

HOUR, DAY = 3_600.0, 86_400.0
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
POLICY = RetrainPolicy(cooldown=dt.timedelta(hours=3), daily_budget=3, weekly_budget=12, max_rejections=3)
DAG_ID = "train"


class RuleBrokenError(AssertionError):
    """Something happened that must never happen."""


class WorkerKilled(BaseException):
    """Stands for SIGKILL."""


@dataclass
class TrainingRun:
    """One Dag run of the training Dag, as it really was."""

    run_id: str
    data: int
    asked: float
    from_ledger: bool
    started: float | None = None
    state: str = "queued"
    outcome: TrainingOutcome | None = None
    is_deleted: bool = False


@dataclass
class Need:
    """Drift that was written down: somebody has to train, later or on the same data."""

    recorded: float
    data: int


class InMemoryLedger(RetrainLedger):
    """Keeps documents without writing them as JSON and reading them back."""

    def _read(self, model: Any, key: str) -> Any:
        return self.store.get(key) or model(model_name=self.model_name), ""

    def _write(self, key: str, document: Any, read: str) -> None:
        self.store.set(key, document)


@dataclass
class RetrainWorld:
    """One simulated month.

    :param seed: everything random follows from it.
    :param events: drift verdicts that arrive.
    :param days: length of the busy time; a quiet time follows, in which what is needed must get done.
    :param jumps: how far clocks jump at most, in days, back and forth.
    :param kills: chance that a task is killed before, and after, each of its writes.
    :param as_json: whether documents are stored as JSON; False is quicker.
    """

    seed: int
    events: int
    days: int = 30
    jumps: float = 3.0
    kills: float = 0.05
    as_json: bool = True
    now: float = 0.0
    skew: float = 0.0
    jumped_ahead: float = 0.0
    documents: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, TrainingRun] = field(default_factory=dict)
    needs: list[Need] = field(default_factory=list)
    newest: tuple[float, str] = (0.0, "")
    windows: dict[str, tuple[float, str]] = field(default_factory=dict)
    triggers: list[tuple[float, float]] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    killed: int = 0
    needed: int = 0
    paused: bool = False
    is_stopped: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._numbers = itertools.count()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self.ledger = (RetrainLedger if self.as_json else InMemoryLedger)(self, "churn")

    # --- time -----------------------------------------------------------------------------------------------
    def at(self, time: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (time, next(self._numbers), act))

    def wall(self, time: float | None = None) -> dt.datetime:
        return dt.datetime.fromtimestamp(START + (self.now if time is None else time) + self.skew, dt.UTC)

    def play(self) -> None:
        """Play the month, then ten quiet days."""
        self._plan()
        while self._queue:
            self.now, _, act = heapq.heappop(self._queue)
            act()
        self.end()

    def _plan(self) -> None:
        busy = self.days * DAY
        bursts = [self.random.uniform(0, busy) for _ in range(max(1, self.events // 100))]
        newest: list[tuple[str, float, str]] = []
        times = [self.random.gauss(self.random.choice(bursts), 3 * HOUR) for _ in range(self.events)]
        for number, time in enumerate(sorted(min(max(0.0, each), busy) for each in times)):
            again = newest and self.random.random() < 0.2
            late = self.random.choice([0.0, 0.0, self.random.uniform(0, 2 * DAY)])
            verdict = self.random.choices(["drifted", "not_drifted", "inconclusive"], [3, 6, 1])[0]
            given = self.random.choice(newest) if again else (f"w{number}", time - late, verdict)
            newest = [*newest[-20:], given]
            self.at(time, self._deciding(given))
        for day in range(self.days):
            self.at(day * DAY + 2 * HOUR, partial(self._queue_run, f"scheduled__{day}"))
        if self.jumps:
            for _ in range(12):
                self.at(self.random.uniform(0, busy), self._jump)
        for _ in range(6):
            paused = self.random.uniform(0, busy)
            self.at(paused, lambda: self._control("pause"))
            self.at(paused + self.random.uniform(0, 2 * DAY), lambda: self._control("resume"))
        for hour in range(10 * 24):
            self.at(busy + hour * HOUR, self._quiet_hour)

    def _jump(self) -> None:
        jump = self.random.uniform(-self.jumps, self.jumps) * DAY
        self.skew += jump
        self.jumped_ahead += max(0.0, jump)

    def _quiet_hour(self) -> None:
        self.kills = 0.0
        if self.paused or self.is_stopped:
            self._control("resume")
        self._decide(None, 0)

    @property
    def data(self) -> int:
        """Number of the newest version of the data."""
        return int(self.now // (10 * HOUR))

    # --- the store, and being killed ------------------------------------------------------------------------
    def _maybe_killed(self) -> None:
        if self.random.random() < self.kills:
            self.killed += 1
            raise WorkerKilled

    def get(self, key: str, default: Any = None) -> Any:
        return self.documents.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self._maybe_killed()
        self.documents[key] = value
        self._maybe_killed()

    # --- the deciding task ----------------------------------------------------------------------------------
    def _deciding(self, given: tuple[str, float, str]) -> Callable[[], None]:
        return lambda: self._decide(given, 2)

    def _decide(self, given: tuple[str, float, str] | None, retries: int) -> None:
        before = self.documents.get(LEDGER_KEY)
        try:
            answer = self.ledger.decide(self._observation(given), POLICY, self)
            self._book(given)
            before = None
            self._check_answer(answer)
            self._maybe_killed()
            if answer.action == "trigger":
                self._trigger(answer)
                self._maybe_killed()
        except WorkerKilled:
            if before is not None and self.documents.get(LEDGER_KEY) is not before:
                self._book(given)
            if retries:
                self.at(self.now + 300, lambda: self._decide(given, retries - 1))

    def _observation(self, given: tuple[str, float, str] | None) -> Observation:
        started = [run for run in self.runs.values() if run.started is not None]
        latest = max(started, key=lambda run: run.started or 0.0, default=None)
        name, end, verdict = given or ("", 0.0, "not_drifted")
        ended = dt.datetime.fromtimestamp(START + end, dt.UTC)  # data know when they are from; workers' clocks may not
        window = WindowVerdict(name=name, verdict=verdict, end=ended) if given else None
        return Observation(
            at=self.wall(),
            by="watch.retrain run",
            dag_id=DAG_ID,
            data_version=f"v{self.data}",
            data_hash=_hash(self.data),
            window=window,
            has_champion=True,
            champion_since=self.wall(),
            latest_training=latest.run_id if latest else "",
            latest_training_at=self.wall(latest.started) if latest else None,
            data_concluded=self._concluded(self.data),
        )

    def _concluded(self, data: int) -> str:
        ended = [run for run in self.runs.values() if run.data == data and run.outcome in CONCLUSIVE]
        return f"{ended[0].outcome}" if ended else ""

    def _check_answer(self, answer: RetrainDecision) -> None:
        self.answers[answer.verdict] = self.answers.get(answer.verdict, 0) + 1
        self.is_stopped = any("a person has to resume" in each for each in answer.objections)
        if answer.verdict == "not_needed":
            self._forget_answered()
            if self.needs:
                raise RuleBrokenError(f"a needed retrain was lost: {self.needs[0]}")

    def _book(self, given: tuple[str, float, str] | None) -> None:
        """Note a verdict that is in the ledger now, by the plain rule: the newest window drifted."""
        if given is None:
            return
        name, end, verdict = given
        changed = name not in self.windows or self.windows[name][1] != verdict
        self.windows[name] = (end, verdict)
        self.newest = max(self.newest, (end, name))
        if changed and self.newest == (end, name) and verdict == "drifted":
            self.needs.append(Need(self.now, self.data))
            self.needed += 1

    def _forget_answered(self) -> None:
        judged = [run for run in self.runs.values() if run.outcome in CONCLUSIVE]
        asked = max((run.asked for run in judged if run.from_ledger), default=-1.0)
        data = max((run.data for run in judged), default=-1)
        self.needs = [need for need in self.needs if need.recorded > asked and need.data > data]

    # --- Airflow --------------------------------------------------------------------------------------------
    def _active(self) -> list[TrainingRun]:
        return [run for run in self.runs.values() if run.state in ("queued", "running") and not run.is_deleted]

    def active_runs(self) -> int:
        return len(self._active())

    def has_run(self, run_id: str) -> bool:
        return run_id in self.runs and not self.runs[run_id].is_deleted

    def open_run(self, run_id: str, data_hash: str) -> OpenRun:
        run = self.runs.get(run_id)
        if run is None:
            return OpenRun(run_id=run_id, state="missing")
        state: Any = "missing" if run.is_deleted else run.state
        return OpenRun(run_id=run_id, state=state, outcome=run.outcome if run.outcome in CONCLUSIVE else None)

    def _trigger(self, answer: RetrainDecision) -> None:
        if self.has_run(answer.run_id):
            return  # Airflow refuses it
        if self._active():
            raise RuleBrokenError(f"two at once: {answer.run_id} beside {self._active()[0].run_id}")
        if self.paused:
            raise RuleBrokenError(f"{answer.run_id} was triggered while it is paused")
        self.triggers.append((self.now, self.now + self.jumped_ahead))
        for budget, span in ((POLICY.daily_budget, DAY), (POLICY.weekly_budget, 7 * DAY)):
            within = sum(self.triggers[-1][1] - ahead < span for _, ahead in self.triggers)
            if within > (budget or 0):
                raise RuleBrokenError(f"over budget: {within} within {span / DAY:g} days (budget {budget})")
        self._queue_run(answer.run_id, from_ledger=True)

    def _queue_run(self, run_id: str, *, from_ledger: bool = False) -> None:
        run = TrainingRun(run_id, self.data, self.now, from_ledger)
        if from_ledger and self._concluded(self.data):
            raise RuleBrokenError(f"{run_id} trains on data that have been trained on")
        self.runs[run_id] = run
        self._start_next()

    def _start_next(self) -> None:
        active = self._active()
        if active and not any(run.state == "running" for run in active):
            run = min(active, key=lambda each: each.asked)
            run.state, run.started = "running", self.now
            self.at(self.now + self.random.uniform(HOUR, 4 * HOUR), lambda: self._finish(run))

    def _finish(self, run: TrainingRun) -> None:
        weights = {"promoted": 4, "rejected": 3, "failed": 2, "inconclusive": 1, "registered": 1}
        run.outcome = self.random.choices(list(weights), list(weights.values()))[0]  # type: ignore[assignment]
        run.state = "failed" if run.outcome in ("failed", "rejected", "inconclusive") else "success"
        run.is_deleted = self.random.random() < 0.05
        self._report(run, 2)
        self._start_next()

    def _report(self, run: TrainingRun, retries: int) -> None:
        try:
            self._maybe_killed()
            self.ledger.report(
                {
                    "dag_id": DAG_ID,
                    "run_id": run.run_id,
                    "outcome": run.outcome,
                    "data_hash": _hash(run.data),
                    "at": self.wall(),
                }
            )
        except WorkerKilled:
            if retries:
                self._report(run, retries - 1)

    # --- people ---------------------------------------------------------------------------------------------
    def _control(self, action: str) -> None:
        kills, self.kills = self.kills, 0.0
        self.ledger.control(action, "ann", self.wall(), "by the simulation")
        self.kills = kills
        self.paused = action == "pause"

    # --- the end --------------------------------------------------------------------------------------------
    def end(self) -> None:
        self._forget_answered()
        if self.needs:
            raise RuleBrokenError(f"a needed retrain was lost: {len(self.needs)} needs, the first {self.needs[0]}")
        ledger = self.ledger.ledger()
        state = ledgers.state_of(ledger)
        if state.need is not None:
            raise RuleBrokenError(f"the ledger waits for what is done: {state.need}")
        differs = ledgers.replay(ledger)
        if differs:
            raise RuleBrokenError(f"the ledger does not replay: {differs[0]}")


def _hash(data: int) -> str:
    return content_hash(f"v{data}".encode())
