"""One finding of the doctor, and how findings are written for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Diagnosis:
    """One finding."""

    subject: str
    level: Level
    says: str
    advice: str = ""
    """What to do; empty when nothing has to be done."""


def worst(findings: Iterable[Diagnosis]) -> Level:
    """Return the worst level of some findings."""
    order: tuple[Level, ...] = ("ok", "warning", "problem")
    return max((finding.level for finding in findings), key=order.index, default="ok")


def as_text(findings: Sequence[Diagnosis]) -> str:
    """Return findings as text for people."""
    marks = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM"}
    width = max((len(finding.subject) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.level]:<8} {finding.subject:<{width}}  {finding.says}")
        if finding.advice:
            lines.append(f"{'':<8} {'':<{width}}  -> {finding.advice}")
    counts = {level: sum(finding.level == level for finding in findings) for level in marks}
    lines.append(f"\n{counts['ok']} ok, {counts['warning']} warnings, {counts['problem']} problems")
    return "\n".join(lines)


def as_json(findings: Sequence[Diagnosis]) -> str:
    """Return findings as JSON for programs: ``{"worst": level, "findings": [{subject, level, says, advice}]}``."""
    document: dict[str, Any] = {"worst": worst(findings), "findings": [asdict(finding) for finding in findings]}
    return json.dumps(document, indent=2, ensure_ascii=False)
