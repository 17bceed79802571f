"""A YAML file as plain values that know their line and column. Nothing in a file is ever executed.

A strict subset of YAML 1.2: one document, text keys, each key once, no anchors, aliases, tags or merge keys, no tabs.
Values that versions of YAML read differently (``yes``, ``on``, ``0123``) are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import yaml

from airflow_mcp.core.argument import kind_of
from airflow_mcp.exceptions import SpecProblem

FILLED_IN = "filled in: "
"""Prefix of the note on a value that is not in the file; the rule that filled it in follows."""
MAX_BYTES = 1024 * 1024
EMPTY = "the file is empty"
"""The problem with a file that contains nothing, or only comments."""
MAX_DEPTH = 50
_MAX_DIGITS = 100
_MAX_SHOWN = 500
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NO_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NO_BREAK = re.compile("^[ -]*\xa0", re.M)
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_SPECIAL_FIRST = frozenset("+-.0123456789~nNtTfFyYoO")
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TWO_MEANINGS = re.compile(r"[-+]?0[0-9_]+|[-+]?[1-9][0-9]*_[0-9_]*(\.[0-9_]*)?")
_SWITCHES = frozenset(f(word) for word in ("yes", "no", "on", "off") for f in (str.lower, str.title, str.upper))
_WORDS: dict[str, bool | None] = {
    f(word): value
    for word, value in (("true", True), ("false", False), ("null", None), ("~", None))
    for f in (str.lower, str.title, str.upper)
}

FieldPath = tuple[str | int, ...]


class Place(NamedTuple):
    """Where something is written; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        """Write ``file:line:column``."""
        return f"{self.file}:{self.line}:{self.column}"


class Node(NamedTuple):
    """A value, where it is written, and where its key is."""

    content: Any
    """Mapping of names to nodes, list of nodes, or text, number, truth value or None."""
    place: Place
    key_place: Place
    note: str = ""
    """Where the value comes from when it is not in the file as such."""


class _Unusable(Exception):  # noqa: N818 -- never leaves this module
    """Ends the reading of a file; the problem is noted already."""


def write_path(path: Sequence[str | int]) -> str:
    """Write where a value is: ``spec.stages[1].image``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def plain(node: Node) -> Any:
    """Return the values of a node without their places."""
    content = node.content
    if isinstance(content, dict):
        return {name: plain(child) for name, child in content.items()}
    if isinstance(content, list):
        return [plain(child) for child in content]
    return content


def find(node: Node, path: Sequence[str | int]) -> tuple[Node, FieldPath]:
    """Find the node at a path, as far down as the path exists.

    :param path: names and indexes; a step that is not in the file is skipped: a missing field, or pydantic's name of an
        alternative.
    :return: the deepest node found, and the steps that lead to it.
    """
    walked: list[str | int] = []
    for part in path:
        content: Any = node.content
        is_index = isinstance(content, list) and isinstance(part, int) and 0 <= part < len(content)
        if is_index or (isinstance(content, dict) and part in content):
            node = content[part]
            walked.append(part)
    return node, tuple(walked)


def walk(node: Node, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Node]]:
    """Return a node and everything below it, each with its path."""
    yield path, node
    if isinstance(node.content, dict):
        for name, child in node.content.items():
            yield from walk(child, (*path, name))
    elif isinstance(node.content, list):
        for index, child in enumerate(node.content):
            yield from walk(child, (*path, index))


def read_document(data: bytes, file: str, problems: list[SpecProblem]) -> Node | None:
    """Read one YAML document.

    :param data: bytes of the file.
    :param file: name of the file for the places.
    :param problems: every problem is added here.
    :return: the document; None when it cannot be read at all. Once there are problems, use it only to find more.
    """
    try:
        return _Reader(file, problems).read(_text(data, file, problems))
    except _Unusable:
        return None


def _text(data: bytes, file: str, problems: list[SpecProblem]) -> str:
    if len(data) > MAX_BYTES:
        problems.append(SpecProblem(file, 1, 1, "", f"the file must have at most {MAX_BYTES} bytes; got {len(data)}"))
        raise _Unusable
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        place = _place_after(before.removeprefix("\ufeff"))
        problems.append(
            SpecProblem(file, *place, "", f"byte 0x{data[error.start]:02x} is not UTF-8. Save the file as UTF-8")
        )
        raise _Unusable from None
    bad = _NO_TEXT.search(text)
    if bad is not None:
        what = f"character U+{ord(bad[0]):04X} cannot be printed. Remove it"
        problems.append(SpecProblem(file, *_place_after(text[: bad.start()]), "", what))
        raise _Unusable
    if indented := _NO_BREAK.search(text):
        what = "a no-break space (U+00A0) cannot indent. Use plain spaces"
        problems.append(SpecProblem(file, *_place_after(text[: indented.end() - 1]), "", what))
        raise _Unusable
    if "\t" in text:
        for number, line in enumerate(text.split("\n"), 1):
            if "\t" in line:
                what = 'there is a tab. Use spaces (in text write "\\t" between double quotes)'
                problems.append(SpecProblem(file, number, line.index("\t") + 1, "", what))
        raise _Unusable
    return text


def _place_after(text: str) -> tuple[int, int]:
    return text.count("\n") + 1, len(text) - text.rfind("\n")


class _Frame:
    """A mapping or list while it is read."""

    __slots__ = ("content", "is_repeated", "key", "key_place", "own_key_place", "place")

    def __init__(self, content: Any, place: Place, own_key_place: Place) -> None:
        self.content = content
        self.place = place
        self.own_key_place = own_key_place
        self.key: str | None = None
        self.key_place = place
        self.is_repeated = False


class _Reader:
    """Turns the events of a YAML parser into nodes, without recursion: deep nesting must not exhaust the stack."""

    def __init__(self, file: str, problems: list[SpecProblem]) -> None:
        self._file = file
        self._problems = problems
        self._frames: list[_Frame] = []
        self._root: Node | None = None
        self._quoted: Any = None
        """The last text in quotes that spans lines; often a quote before it was not closed."""

    def read(self, text: str) -> Node:
        documents = 0
        try:
            for event in yaml.parse(text, Loader=_LOADER):
                if isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents == 2:
                        self._stop(event, "a second document begins here. Keep one document in a file")
                else:
                    self._take(event)
        except yaml.MarkedYAMLError as error:
            mark = _mark_of(error)
            place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            words = _in_words(error)
            if self._quoted is not None and place[0] == self._quoted.end_mark.line + 1:
                words = f"the quote that opens here is closed only in line {place[0]}. Close it where the text ends"
                place = self._place(self._quoted)[1:]
            self._add(Place(self._file, *place), f"this is not YAML: {words}")
            raise _Unusable from None
        if self._root is None or self._root.content is None:
            self._add(Place(self._file, 1, 1), EMPTY)
            raise _Unusable
        return self._root

    def _take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            self._open(event, {})
        elif isinstance(event, yaml.SequenceStartEvent):
            self._open(event, [])
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            frame = self._frames.pop()
            self._put(Node(frame.content, frame.place, frame.own_key_place))
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self._file, mark.line + 1, mark.column + 1)

    def _add(self, place: Place, what: str, *names: str) -> None:
        steps = [
            frame.key if isinstance(frame.content, dict) else len(frame.content)
            for frame in self._frames
            if frame.key is not None or isinstance(frame.content, list)
        ]
        field = write_path([*(step for step in steps if step is not None), *names])
        self._problems.append(SpecProblem(*place, field[:_MAX_SHOWN], what[:_MAX_SHOWN]))

    def _stop(self, event: Any, what: str) -> None:
        self._add(self._place(event), what)
        raise _Unusable

    def _awaits_key(self) -> bool:
        return bool(self._frames) and isinstance(self._frames[-1].content, dict) and self._frames[-1].key is None

    def _check(self, event: Any) -> None:
        if event.tag is not None:
            self._add(self._place(event), f"tag {event.tag} is refused. Write plain values")
        if event.anchor is not None:
            what = f"anchor &{event.anchor} is refused. Repeat the value, or put it into defaults.yaml"
            self._add(self._place(event), what)
        if isinstance(event, yaml.ScalarEvent) and _HALF_CHARACTER.search(event.value):
            self._stop(event, "the escape is half a character. Write the character itself")

    def _alias(self, event: Any) -> None:
        what = f"alias *{event.anchor} is refused. Repeat the value, or put text that begins with * in quotes"
        self._add(self._place(event), what)
        if self._awaits_key():
            raise _Unusable
        self._put(Node(None, self._place(event), self._key_place(event)))

    def _key_place(self, event: Any) -> Place:
        frame = self._frames[-1] if self._frames else None
        return frame.key_place if frame is not None and isinstance(frame.content, dict) else self._place(event)

    def _open(self, event: Any, content: Any) -> None:
        self._check(event)
        if self._awaits_key():
            self._stop(event, f"a key must be text; got {kind_of(content)}")
        if len(self._frames) == MAX_DEPTH:
            self._stop(event, f"values are nested deeper than {MAX_DEPTH} levels")
        self._frames.append(_Frame(content, self._place(event), self._key_place(event)))

    def _scalar(self, event: Any) -> None:
        self._check(event)
        if event.style in ("'", '"') and event.end_mark.line > event.start_mark.line:
            self._quoted = event
        if self._awaits_key():
            self._take_key(event)
            return
        value = event.value
        if event.implicit[0] and value and value[0] in _SPECIAL_FIRST:
            value = self._resolve(event, value)
        elif not value and event.implicit[0]:
            value = None
        self._put(Node(value, self._place(event), self._key_place(event)))

    def _resolve(self, event: Any, text: str) -> Any:
        if text in _SWITCHES:
            word = "true" if text.lower() in ("yes", "on") else "false"
            self._add(self._place(event), f"{text} is ambiguous in YAML. Write {word}, or '{text}' for the text")
            return text
        if _TWO_MEANINGS.fullmatch(text):
            number = text.replace("_", "").lstrip("+0") or "0"
            what = f"{text} is ambiguous in YAML. Write {number} for the number, or '{text}' for the text"
            self._add(self._place(event), what)
            return text
        try:
            return resolve_scalar(text)
        except ValueError as error:
            self._add(self._place(event), str(error))
            return 0

    def _take_key(self, event: Any) -> None:
        frame, key, place = self._frames[-1], event.value, self._place(event)
        if event.implicit[0]:
            self._check_plain_key(key, place)
        if key in frame.content:
            first = frame.content[key].key_place.line
            self._add(place, f"the key is here twice, first in line {first}. Give each key once", key)
        frame.key, frame.key_place, frame.is_repeated = key, place, key in frame.content

    def _check_plain_key(self, key: str, place: Place) -> None:
        if key == "<<":
            self._add(place, "merge keys (<<) are refused. Repeat the fields, or put them into defaults.yaml")
            return
        try:
            value = resolve_scalar(key) if key else None
        except ValueError:
            value = 0
        if not isinstance(value, str):
            self._add(place, f"a key must be text; got {kind_of(value)}. Write '{key}' in quotes")

    def _put(self, node: Node) -> None:
        if not self._frames:
            self._root = node
            return
        frame = self._frames[-1]
        if isinstance(frame.content, list):
            frame.content.append(node)
        else:
            if not frame.is_repeated:
                frame.content[frame.key] = node
            frame.key = None


def resolve_scalar(text: str) -> Any:
    """Read plain text as YAML 1.2 does: null, true and false, numbers, and everything else as text.

    :raises ValueError: for a number that is not finite or has more than 100 digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"must be a finite number; got {text}")
    is_whole = _WHOLE.fullmatch(text) or _OTHER_BASE.fullmatch(text)
    if not is_whole and not _DECIMAL.fullmatch(text):
        return text
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"must have at most {_MAX_DIGITS} digits; got {len(text)}. Put it in quotes if it is text")
    if is_whole:
        return int(text, 0) if text.startswith("0") and len(text) > 1 else int(text)
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"must be a finite number; got {text}")
    return number


def _mark_of(error: yaml.MarkedYAMLError) -> Any:
    """Return where the mistake is: for an open quote and a key without a colon, where that begins."""
    begins = "quoted scalar" in (error.context or "") or "expected ':'" in (error.problem or "")
    first, second = error.problem_mark, error.context_mark
    return (second or first) if begins else (first or second)


_FORMS = (
    ("expected ':'", "there is a key without a value. Write a colon and a space after it"),
    ("expected comment or line break", "put text that begins with > or | in quotes"),
    ("expected alphabetic or numeric", "put text that begins with * or & in quotes"),
    (
        "mapping values are not allowed",
        "there is a colon where none may be. Check the indentation, and put text that contains ': ' in quotes",
    ),
)
"""Parts of the parser's messages, and what to say instead."""


def _in_words(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "it cannot be read"
    if "quoted scalar" in (error.context or ""):
        return "the quote that opens here is not closed"
    for part, words in _FORMS:
        if part in problem:
            return words
    if "cannot start any token" in problem:
        return f"{problem}. Put text that begins with it in quotes"
    if "did not find expected" in problem or "expected <block end>" in problem:
        hint = "Check indentation, quotes and brackets of this line and the one before"
        return f"{problem}. {hint} (between {{ and }}, put text such as ${{NAME}} in quotes)"
    return problem
