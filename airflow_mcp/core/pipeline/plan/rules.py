"""What is filled in when a pipeline file does not say it; the docs and ``airflow-mcp plan`` show these words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from airflow_mcp.core.pipeline.file.document import FILLED_IN

FilledStage = Literal[
    "begin",
    "pin_data",
    "train",
    "evaluate",
    "select",
    "gate",
    "register",
    "load_check",
    "promote",
    "on_unchanged",
    "approve",
    "record_approval",
    "outcome",
]

FILL_IN_RULES: Mapping[FilledStage, str] = {
    "begin": "every run first settles what it is about: hash of the spec, commit, version of the data and the reason",
    "pin_data": "spec.data is given, so one version of it is chosen and hashed once for all later steps",
    "train": "every pipeline trains",
    "evaluate": "a model is measured before it is judged",
    "select": "spec.candidates are given, so one of them is picked before the gate",
    "gate": "no model is registered unless its thresholds hold; evaluate.metricsThreshold are the gate's rules too",
    "register": "a model that passes the gate becomes a version, unless spec.stopAfter says otherwise",
    "load_check": "no version becomes the champion unless it loads and answers its own input example",
    "promote": "a version that passed the gate becomes the champion, unless spec.stopAfter says otherwise",
    "approve": "gate.escalation is ask, so a person is asked when the gate cannot decide",
    "record_approval": "who said yes, when and why is written down before anything is registered",
    "outcome": "a model that was judged, or could not be, counts in the retrain ledger, however the run ends",
    "on_unchanged": "with candidates every run trains all of them: the pick needs all of them",
}
"""Stage or subject to the rule in words."""


def filled_in(subject: FilledStage) -> str:
    """Write the origin of something that the file does not name.

    :param subject: key of :data:`FILL_IN_RULES`.
    """
    return f"{FILLED_IN}{FILL_IN_RULES[subject]}"
