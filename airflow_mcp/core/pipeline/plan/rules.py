"""Why a task is filled in that a pipeline file does not name; ``airflow-mcp plan`` and the docs show these words."""

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
    "deploy",
    "promote",
    "on_unchanged",
    "approve",
    "record_approval",
    "outcome",
]

FILL_IN_RULES: Mapping[FilledStage, str] = {
    "begin": "every run first pins what it uses: hash of the spec, commit, data version and reason",
    "pin_data": "spec.data is given, so one version of it is pinned and hashed for all later steps",
    "train": "every pipeline trains",
    "evaluate": "a model is measured before the gate judges it",
    "select": "spec.candidates are given, so the best of them is selected before the gate",
    "gate": "no model is registered unless it meets its thresholds; evaluate.metricsThreshold are rules of the gate",
    "register": "a model that passes the gate becomes a version, unless spec.stopAfter says otherwise",
    "load_check": "no version becomes the champion unless it loads and predicts its own input example",
    "deploy": "spec.stopAfter is deploy, so the version is rolled out with the usual steps and becomes the champion",
    "promote": "a version that passed the gate becomes the champion, unless spec.stopAfter says otherwise",
    "approve": "gate.escalation is ask, so a person decides when the gate is inconclusive",
    "record_approval": "an approval is recorded, with person, time and reason, before anything is registered",
    "outcome": "the retrain ledger records how every training ended, even when the run fails",
    "on_unchanged": "with candidates, every run trains all of them, so that they can be compared",
}
"""Stage or subject to the rule in words."""


def filled_in(subject: FilledStage) -> str:
    """Return the origin of something that is not in the file.

    :param subject: key of :data:`FILL_IN_RULES`.
    """
    return f"{FILLED_IN}{FILL_IN_RULES[subject]}"
