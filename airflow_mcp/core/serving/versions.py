"""Which versions of the models a server fetches, starts, answers with and retires.

:func:`plan_versions` compares what is wanted with what is held and returns the next actions. An actor outside carries
them out and reports what happened as a new :class:`Held`. The rule above all others: a version that answers is retired
only after another version of its model answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

FIRST_RETRY, LONGEST_RETRY = 5.0, 300.0
"""Seconds until a version that failed is tried again: the first time, and at most."""


@dataclass(frozen=True, order=True)
class ServedVersion:
    """One version of a registered model, as a key."""

    model: str
    version: str
    """The number of the version, never an alias."""

    def __str__(self) -> str:
        """Return it as ``fraud/8``."""
        return f"{self.model}/{self.version}"


class VersionState(StrEnum):
    """How far a version has come in this server."""

    FETCHING = "FETCHING"
    """Its files are copied into the cache."""
    CHECKING = "CHECKING"
    """Its files are complete, and its evidence is checked; no byte of it has been loaded."""
    STARTING = "STARTING"
    """Its processes load it and answer its input example."""
    READY = "READY"
    """It can answer requests."""
    RETIRING = "RETIRING"
    """It gets no new requests, and ends when those in flight are answered."""
    GONE = "GONE"
    """Its processes have ended."""
    FAILED = "FAILED"
    """It cannot answer; the reason is kept and it is tried again later."""


WantedAs = Literal["champion", "canary", "standby"]
_ORDER: tuple[WantedAs, ...] = ("champion", "standby", "canary")
"""What is started first."""
ON_THE_WAY = (VersionState.FETCHING, VersionState.CHECKING, VersionState.STARTING)
"""States in which a task prepares a version."""


@dataclass(frozen=True)
class Wanted:
    """A version that the registry asks this server to hold."""

    key: ServedVersion
    role: WantedAs = "champion"
    mark: str = ""
    """What the registry says about the version. A version that failed is tried again at once when this changes."""


@dataclass(frozen=True)
class Held:
    """What this server has of one version."""

    key: ServedVersion
    state: VersionState
    reason: str = ""
    """Why it failed, or is where it is."""
    is_checked: bool = False
    """In state CHECKING: whether all checks have passed, so that it may be started."""
    answers_as_champion: bool = False
    """Whether requests of its model go to it unless something else is said."""
    memory_bytes: int = 0
    """Memory that it takes, or is expected to take when it is started; 0 when that is not known."""
    failures: int = 0
    """How often it has failed since it was READY."""
    next_try: float = 0.0
    """In state FAILED: when it is tried again, by the clock of ``now``."""
    last_wanted: float = 0.0
    """When it was wanted most recently, by the clock of ``now``."""
    mark: str = ""
    """The mark of its :class:`Wanted` when it was last tried."""

    @property
    def is_waiting(self) -> bool:
        """Whether it may be started."""
        return self.state is VersionState.CHECKING and self.is_checked


@dataclass(frozen=True)
class Budget:
    """What the server can afford."""

    memory_bytes: int | None = None
    """Memory that further versions can take; None when that is not known, and then memory refuses nothing."""
    keep_warm: int = 1
    """Number of versions of each model that stay loaded after they were wanted, so that going back is immediate."""
    starts_at_once: int = 1
    """Number of versions that load at the same time. A champion does not wait for others."""


@dataclass(frozen=True)
class Fetch:
    """Copy the files of a version into the cache and check it."""

    key: ServedVersion


@dataclass(frozen=True)
class Start:
    """Load a version that has passed its checks."""

    key: ServedVersion


@dataclass(frozen=True)
class Serve:
    """From now on answer the requests of its model with this version, which is READY."""

    key: ServedVersion


@dataclass(frozen=True)
class Retire:
    """Stop a version, whatever it is doing, after its requests in flight are answered."""

    key: ServedVersion
    reason: str


@dataclass(frozen=True)
class Refuse:
    """Count a version as failed without starting it."""

    key: ServedVersion
    reason: str


Action: TypeAlias = Fetch | Start | Serve | Retire | Refuse


def retry_at(failures: int, now: float) -> float:
    """Return when a version that failed is tried again.

    :param failures: how often it has failed, from 1.
    :param now: present time, in seconds.
    """
    return now + min(FIRST_RETRY * 2.0 ** min(max(failures - 1, 0), 30), LONGEST_RETRY)


def plan_versions(wanted: Sequence[Wanted], held: Sequence[Held], budget: Budget, now: float) -> list[Action]:
    """Return what to do next, in order.

    What answers keeps answering until the champion that is wanted is READY, also when nothing of its model is wanted
    any more (for example because the alias points at nothing).

    :param wanted: the versions that the registry asks for, of all models; at most one champion of each.
    :param held: the versions that the server has, of all models; those that are GONE may be left out.
    :param budget: what the server can afford.
    :param now: present time, in seconds, by any clock that does not go back.
    """
    present = {item.key: item for item in held if item.state is not VersionState.GONE}
    names = dict.fromkeys(key.model for key in sorted({*present, *(wish.key for wish in wanted)}))
    models = [_Model.of(name, wanted, present) for name in names]
    serves = [Serve(model.takes_over) for model in models if model.takes_over is not None]
    retires = [end for model in models for end in model.retires(budget.keep_warm)]
    wishes = sorted((wish for model in models for wish in model.wishes), key=lambda wish: _ORDER.index(wish.role))
    fetches = [Fetch(wish.key) for wish in wishes if _must_fetch(wish, present.get(wish.key), now)]
    spare = [item for model in models for item in model.warm if item.key not in {end.key for end in retires}]
    leaving = bool(retires) or any(item.state is VersionState.RETIRING for item in present.values())
    starts = _starts(wishes, present, budget, sorted(spare, key=lambda item: item.last_wanted), leaving)
    return [*serves, *retires, *fetches, *starts]


@dataclass(frozen=True)
class _Model:
    """What is wanted and held of one registered model."""

    wishes: tuple[Wanted, ...]
    """What is wanted, and what goes on answering because nothing replaces it yet."""
    held: tuple[Held, ...]
    answers: ServedVersion | None
    """The version that answers from now on."""
    takes_over: ServedVersion | None
    """The same, if another version, or none, has answered until now."""

    @classmethod
    def of(cls, name: str, wanted: Sequence[Wanted], present: Mapping[ServedVersion, Held]) -> _Model:
        wishes = {wish.key: wish for wish in wanted if wish.key.model == name}
        held = tuple(item for key, item in present.items() if key.model == name)
        ready = {item.key for item in held if item.state is VersionState.READY}
        now = next((item.key for item in held if item.answers_as_champion), None)
        takes_over = next((key for key, wish in wishes.items() if wish.role == "champion" and key in ready), None)
        if takes_over is None and now not in ready:
            takes_over = next((key for key, wish in wishes.items() if wish.role == "standby" and key in ready), None)
        answers = takes_over or now
        if answers is not None and answers not in wishes:
            wishes[answers] = Wanted(answers, "champion", present[answers].mark)
        return cls(tuple(wishes.values()), held, answers, takes_over if takes_over != now else None)

    @property
    def warm(self) -> list[Held]:
        """Versions that can answer and that nobody wants, the one wanted most recently first."""
        wanted = {wish.key for wish in self.wishes}
        idle = [item for item in self.held if item.state is VersionState.READY and item.key not in wanted]
        return sorted(idle, key=lambda item: item.last_wanted, reverse=True)

    def retires(self, keep_warm: int) -> list[Retire]:
        """Return what to stop."""
        wanted = {wish.key for wish in self.wishes}
        idle = (*ON_THE_WAY, VersionState.FAILED)
        unwanted = [item.key for item in self.held if item.state in idle and item.key not in wanted]
        surplus = [item.key for item in self.warm[keep_warm:]]
        return [
            *(Retire(key, "no longer wanted") for key in unwanted),
            *(Retire(key, f"no longer wanted, and {keep_warm} are kept warm") for key in surplus),
        ]


def _must_fetch(wish: Wanted, item: Held | None, now: float) -> bool:
    if item is None:
        return True
    return item.state is VersionState.FAILED and (item.next_try <= now or item.mark != wish.mark)


def _starts(
    wishes: Sequence[Wanted],
    held: Mapping[ServedVersion, Held],
    budget: Budget,
    spare: Sequence[Held],
    leaving: bool,
) -> list[Action]:
    """Return which of the checked versions load now.

    :param spare: versions that are only kept warm, the first to be given up first.
    :param leaving: whether memory is about to become free, because a version is ending.
    """
    actions: list[Action] = []
    running = sum(item.state is VersionState.STARTING for item in held.values())
    free = budget.memory_bytes
    waiting = [(wish, held[wish.key]) for wish in wishes if wish.key in held and held[wish.key].is_waiting]
    for wish, item in waiting:
        if free is not None and item.memory_bytes > free:
            if spare and not leaving:
                actions.append(Retire(spare[0].key, f"its memory is needed for {wish.key}"))
                leaving = True
            elif not leaving:
                actions.append(Refuse(wish.key, _too_large(item.memory_bytes, free)))
        elif running < budget.starts_at_once or wish.role == "champion":
            actions.append(Start(wish.key))
            running += 1
            free = None if free is None else free - item.memory_bytes
    return actions


def _too_large(needed: int, free: int) -> str:
    mebibyte = 1024 * 1024
    return (
        f"memory: it needs {needed // mebibyte} MiB beside what is loaded, and {max(free, 0) // mebibyte} MiB are "
        "free. Raise the memory limit of the server"
    )
