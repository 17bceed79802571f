"""Makes the judgement of a gate again, from the inputs that it stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_mcp.core import contract
from airflow_mcp.core.document import dump_document, parse_document
from airflow_mcp.core.gate.inputs import GateInputs, case_of, judge_case
from airflow_mcp.core.identity import content_hash
from airflow_mcp.core.replay.result import Difference, Replayed, compare
from airflow_mcp.exceptions import RefusedError


def replay_gate(
    event: Mapping[str, Any], inputs: bytes | None, contents: Mapping[str, bytes], report: bytes | None
) -> Replayed:
    """Make the judgement of a gate again and compare it with the recorded one.

    :param event: the event ``gate.decided``.
    :param inputs: the stored inputs; None when they are gone.
    :param contents: content of the reports of earlier steps, by hash.
    :param report: the stored report, to name the fields that differ; None when it is gone.
    """
    named, run_id = event["inputs"], event["new"]["run_id"]
    if not named.get("inputs"):
        return Replayed(missing=("the hash of the gate's inputs in its event, which older versions did not record",))
    if inputs is None:
        return Replayed(missing=(f"{contract.ARTIFACT_GATE_INPUTS} of MLflow run {run_id}",))
    changed = tuple(compare(named["inputs"], content_hash(inputs), f"hash of {contract.ARTIFACT_GATE_INPUTS}"))
    try:
        stored = parse_document(GateInputs, inputs, contract.ARTIFACT_GATE_INPUTS)
        again = dump_document(judge_case(case_of(stored, contents))).encode()
    except RefusedError as error:
        return Replayed(changed, (str(error),))
    if content_hash(again) == named["report"]:
        return Replayed(changed, packages=stored.packages)
    fields = _fields(event, again, report)
    return Replayed((*changed, *fields), packages=stored.packages)


def _fields(event: Mapping[str, Any], again: bytes, report: bytes | None) -> tuple[Difference, ...]:
    """Return what differs: every field if the recorded report is there, else what the event says."""
    now = json.loads(again)
    if report is not None and content_hash(report) == event["inputs"]["report"]:
        return tuple(compare(json.loads(report), now, ""))
    said = event["new"]
    of_event = {"verdict": said["verdict"], "mode": said["mode"], "champion_version": said["champion"]}
    found = tuple(compare(of_event, {name: now[name] for name in of_event}, ""))
    return found or (Difference("hash of the report", event["inputs"]["report"], content_hash(again)),)
