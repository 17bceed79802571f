"""Makes a decision on retraining again, from the entry of the ledger that the log names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_mcp.core.audit.decisions import plain
from airflow_mcp.core.replay.result import Replayed, compare
from airflow_mcp.core.retrain.documents import Ledger
from airflow_mcp.core.retrain.ledger import facts_hash, replay_entry


def replay_retrain(event: Mapping[str, Any], ledger: Ledger) -> Replayed:
    """Make a decision on retraining again and compare it with the recorded one.

    :param event: the event ``retrain.decided``.
    :param ledger: the ledger of the model.
    """
    new = event["new"]
    if new["entry"] != "decision":
        return Replayed(missing=(f"rules for the entry {new['entry']!r}, which is not a decision",))
    number = new["number"]
    again = replay_entry(ledger, number)
    if again is None:
        return Replayed(missing=(f"decision {number} in the ledger, which begins after {ledger.base_seq}",))
    recorded = {**new, "facts": event["inputs"]["facts"]}
    replayed = {**new, **plain(again.to_json()), "facts": facts_hash(ledger, number)}
    return Replayed(tuple(compare(recorded, replayed, "")))
