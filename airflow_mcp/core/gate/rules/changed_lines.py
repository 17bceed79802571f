"""The lines that a change adds, read from a unified diff such as ``git diff -U0`` writes."""

from __future__ import annotations

import re

from airflow_mcp.exceptions import EvidenceError

_HUNK = re.compile(r"@@ -\d+(?:,(?P<before>\d+))? \+(?P<start>\d+)(?:,(?P<after>\d+))? @@")
_NO_FILE = "/dev/null"


def parse_changed_lines(content: bytes) -> dict[str, set[int]]:
    """Read which lines a change adds or modifies.

    :param content: a unified diff; may be empty.
    :return: line numbers by file; names and numbers are those after the change.
    :raises EvidenceError: when it is not a unified diff, or is truncated.
    """
    changed: dict[str, set[int]] = {}
    file, number, added, left = "", 0, 0, 0
    is_diff = False
    # Not splitlines: a form feed, a lone CR or U+2028 within a line does not end it.
    for line in content.decode(errors="replace").removesuffix("\n").split("\n"):
        if added or left:
            kind = line.removesuffix("\r")[:1]
            if kind == "+":
                changed.setdefault(file, set()).add(number)
            number += kind in ("+", " ", "")
            added -= kind in ("+", " ", "")
            left -= kind in ("-", " ", "")
        elif line.startswith("+++ "):
            file, is_diff = _name(line[4:]), True
        elif match := _HUNK.match(line):
            number, is_diff = int(match["start"]), True
            left, added = (int(match[group] or 1) for group in ("before", "after"))
        if added < 0 or left < 0:
            raise EvidenceError("it is not a unified diff: a hunk has more lines than its header says")
    if added or left:
        raise EvidenceError("the unified diff is truncated: it ends in the middle of a hunk")
    if content.strip() and not is_diff and b"diff --git" not in content:
        raise EvidenceError("it is not a unified diff")
    changed.pop(_NO_FILE, None)
    return changed


def _name(text: str) -> str:
    name = text.split("\t", maxsplit=1)[0].strip().strip('"')
    return name.removeprefix("b/") if name != _NO_FILE else name
