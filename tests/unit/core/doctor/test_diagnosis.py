"""How the doctor's findings are written."""

from __future__ import annotations

import json

from airflow_mcp.core.doctor.diagnosis import Diagnosis, as_json, as_text, worst


def test_findings_are_written_for_people_and_for_programs() -> None:
    findings = [
        Diagnosis("a", "ok", "fine"),
        Diagnosis("long", "problem", "bad", "mend it"),
        Diagnosis("c", "warning", "hm", "x"),
    ]
    assert as_text(findings).splitlines() == [
        "ok       a     fine",
        "PROBLEM  long  bad",
        "               -> mend it",
        "WARNING  c     hm",
        "               -> x",
        "",
        "1 ok, 1 warnings, 1 problems",
    ]
    document = json.loads(as_json(findings))
    assert document["worst"] == "problem"
    assert document["findings"][1] == {"subject": "long", "level": "problem", "says": "bad", "advice": "mend it"}
    assert worst(findings[:1]) == "ok"
    assert worst([]) == "ok"
