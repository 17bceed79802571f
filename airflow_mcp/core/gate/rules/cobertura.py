"""Coverage reports in Cobertura's XML, as coverage.py, gcovr, JaCoCo's converters and others write them.

The parser is expat. A document type without content of its own is let be and never fetched; declarations of entities,
and an internal subset, are refused: no report needs them, and they are how XML is made to explode.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from xml.parsers import expat

from airflow_mcp.exceptions import EvidenceError

MAX_DEPTH = 64
_CONDITIONS = re.compile(r"\d+(?:\.\d+)?%\s*\((\d+)/(\d+)\)")


class Line(NamedTuple):
    """One executable line."""

    is_covered: bool
    branches_covered: int = 0
    branches: int = 0


@dataclass
class Coverage:
    """Coverage line by line."""

    files: dict[str, dict[int, Line]] = field(default_factory=dict)
    """Lines by number, by file as the report names it."""
    roots: list[str] = field(default_factory=list)
    """Folders that the file names are relative to."""

    @property
    def lines(self) -> list[Line]:
        """Every line of every file."""
        return [line for lines in self.files.values() for line in lines.values()]


class Share(NamedTuple):
    """How many of all lines or branches are covered."""

    covered: int
    all: int

    @property
    def rate(self) -> float | None:
        """The covered share, 0 to 1; None when there is nothing to cover."""
        return self.covered / self.all if self.all else None

    def __str__(self) -> str:
        """Return it as ``8 of 10``."""
        return f"{self.covered} of {self.all}"


def line_share(coverage: Coverage) -> Share:
    """Count the lines that ran."""
    return Share(sum(line.is_covered for line in coverage.lines), len(coverage.lines))


def branch_share(coverage: Coverage) -> Share:
    """Count the branches that were taken."""
    lines = coverage.lines
    return Share(sum(line.branches_covered for line in lines), sum(line.branches for line in lines))


def parse_cobertura(content: bytes) -> Coverage:
    """Read a report.

    A line that is listed several times, for example below a method and below its class, counts once; it is covered if
    one of them is.

    :param content: the XML text.
    :raises EvidenceError: when it is not a Cobertura report, or declares entities.
    """
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _refuse_internal_subset
    parser.EntityDeclHandler = _refuse_entities
    parser.ExternalEntityRefHandler = _refuse_entities
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise EvidenceError(f"it is not XML: {expat.ErrorString(error.code)} in line {error.lineno}") from None
    except EvidenceError:
        raise
    except (ValueError, LookupError) as error:
        raise EvidenceError(f"it is not a coverage report: {error}") from None
    return reader.coverage


class _Reader:
    def __init__(self) -> None:
        self.coverage = Coverage()
        self._open: list[str] = []
        self._file: dict[int, Line] | None = None
        self._source = ""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        if not self._open and name != "coverage":
            raise EvidenceError(f"it is not a coverage report: its first element is {name!r}, not 'coverage'")
        self._open.append(name)
        if len(self._open) > MAX_DEPTH:
            raise EvidenceError(f"it is nested deeper than {MAX_DEPTH} elements")
        if name == "class":
            if not attributes.get("filename"):
                raise EvidenceError("it is not a coverage report: a class has no file name")
            self._file = self.coverage.files.setdefault(attributes["filename"].replace("\\", "/"), {})
        elif name == "line" and self._file is not None:
            self._add_line(attributes)

    def end(self, name: str) -> None:
        self._open.pop()
        if name == "class":
            self._file = None
        elif name == "source":
            if self._source.strip():
                self.coverage.roots.append(self._source.strip())
            self._source = ""

    def text(self, data: str) -> None:
        if self._open and self._open[-1] == "source":
            self._source += data

    def _add_line(self, attributes: Mapping[str, str]) -> None:
        assert self._file is not None  # noqa: S101
        number, hits = int(attributes.get("number", "")), int(attributes.get("hits", ""))
        covered, branches = _conditions(attributes)
        before = self._file.get(number, Line(False))
        self._file[number] = Line(
            before.is_covered or hits > 0, max(before.branches_covered, covered), max(before.branches, branches)
        )


def _conditions(attributes: Mapping[str, str]) -> tuple[int, int]:
    """Read ``50% (1/2)``."""
    if attributes.get("branch") != "true":
        return 0, 0
    match = _CONDITIONS.fullmatch(attributes.get("condition-coverage", "").strip())
    if match is None or int(match[1]) > int(match[2]):
        raise ValueError(f"condition-coverage is {attributes.get('condition-coverage')!r}")
    return int(match[1]), int(match[2])


def _refuse_internal_subset(_name: str, _system: Any, _public: Any, has_internal_subset: bool) -> None:
    if has_internal_subset:
        raise EvidenceError("it declares a document type, which is refused: no coverage report needs one")


def _refuse_entities(*_: Any) -> int:
    raise EvidenceError("it declares or uses entities, which is refused: no coverage report needs them")
