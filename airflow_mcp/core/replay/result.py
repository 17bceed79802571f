"""What comes of making a decision again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ReplayVerdict = Literal["identical", "different", "impossible"]


@dataclass(frozen=True)
class Difference:
    """One value that comes out differently."""

    field: str
    recorded: str
    replayed: str

    def __str__(self) -> str:
        """Return it as one line of text."""
        return f"{self.field}: {self.recorded} then, {self.replayed} now"


@dataclass(frozen=True)
class Replayed:
    """A decision that was made again."""

    differences: tuple[Difference, ...] = ()
    missing: tuple[str, ...] = ()
    """What is not there, so that the decision cannot be made again."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions of what decided then; empty when that is not known."""

    @property
    def verdict(self) -> ReplayVerdict:
        """Whether the decision comes out the same."""
        if self.differences:
            return "different"
        return "impossible" if self.missing else "identical"

    def __add__(self, other: Replayed) -> Replayed:
        """Return both as one."""
        packages = {**self.packages, **other.packages}
        return Replayed(self.differences + other.differences, self.missing + other.missing, packages)


def compare(recorded: Any, replayed: Any, place: str) -> Iterator[Difference]:
    """Yield the differences of two JSON values, field by field.

    :param recorded: the recorded value.
    :param replayed: the value now.
    :param place: name of the value.
    """
    if isinstance(recorded, Mapping) and isinstance(replayed, Mapping):
        for name in sorted(recorded.keys() | replayed.keys()):
            yield from compare(recorded.get(name), replayed.get(name), f"{place}.{name}" if place else str(name))
    elif isinstance(recorded, list) and isinstance(replayed, list) and len(recorded) == len(replayed):
        for number, pair in enumerate(zip(recorded, replayed, strict=True)):
            yield from compare(*pair, f"{place}[{number}]")
    elif recorded != replayed:
        yield Difference(place, str(recorded), str(replayed))
