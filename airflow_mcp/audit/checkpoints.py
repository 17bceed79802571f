"""Makes checkpoints of a log and takes them to their anchors: each goes on from the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from airflow_mcp.core.audit.checkpoint import Checkpoint, read_checkpoint, sign
from airflow_mcp.core.audit.event import AuditActor, without_credentials
from airflow_mcp.core.audit.log import LOG, about_log, export
from airflow_mcp.core.audit.verify import Progress, Verification, verify
from airflow_mcp.exceptions import AnchorError, EvidenceError, InvalidArgumentError

if TYPE_CHECKING:
    from airflow_mcp.audit.anchors import Anchor
    from airflow_mcp.core.audit.log import AuditLog
    from airflow_mcp.core.audit.record import Record
    from airflow_mcp.core.ports import Signer

CHECKPOINTED = "audit.checkpointed"
LONGEST_WITHOUT = timedelta(hours=24)
"""After this time without an anchor, what could be cut from the log unseen is too much."""
_LONGEST_PROBLEM = 500


@dataclass(frozen=True)
class Sealed:
    """What became of a checkpoint."""

    found: Verification
    verified_from: int
    """Sequence number of the first record that was read."""
    places: tuple[str, ...] = ()
    """Exactly where it is."""
    failed: dict[str, str] = field(default_factory=dict)
    """Anchor to problem."""
    is_anchored: bool = False
    """Whether it is at a place that counts alone."""


def require_independent(anchors: Sequence[Anchor]) -> None:
    """Check that one of the anchors counts alone.

    :raises InvalidArgumentError: when none does: whoever can change the log could change the checkpoints too.
    """
    if not any(anchor.counts_alone for anchor in anchors):
        names = ", ".join(anchor.name for anchor in anchors) or "none"
        raise InvalidArgumentError(
            f"anchors must have one that counts alone, such as a folder, a bucket or a branch; got {names}. A tag in "
            "MLflow is only a further place to look"
        )


def seal(log: AuditLog, anchors: Sequence[Anchor], signer: Signer, actor: AuditActor, environment: str) -> Sealed:
    """Verify what the log has grown by, sign its size and root, and take the note to every anchor.

    :param log: the log; the login may export it and append ``audit.`` events.
    :param anchors: the places.
    :param signer: an Ed25519 key.
    :param actor: who asks.
    :param environment: dev, test or prod.
    :return: when the log is not whole, no checkpoint was made.
    :raises AuditUnavailableError: when the log does not answer; a retry makes the checkpoint.
    :raises EvidenceError: when an anchor has another checkpoint than the log says.
    """
    require_independent(anchors)
    begin = _begin(log, anchors, signer)
    after = begin.size if begin else 0
    found = verify(log.read(export(actor, environment, reason="checkpoint", after=after)), begin=begin)
    if not found.is_whole:
        return Sealed(found, after + 1)
    checkpoint = found.progress.checkpoint
    note = sign(checkpoint, signer)
    places, failed, is_anchored = [], {}, False
    for anchor in anchors:
        try:
            places.append(anchor.put(checkpoint.file, note))
            is_anchored = is_anchored or anchor.counts_alone
        except AnchorError as error:
            failed[anchor.name] = without_credentials(str(error)[:_LONGEST_PROBLEM])
    if places:
        said = {**found.progress.to_json(), "root": checkpoint.root.hex(), "places": places, "anchored": is_anchored}
        log.append(about_log(CHECKPOINTED, actor, environment, said))
    for name, problem in failed.items():
        what = {"size": checkpoint.size, "place": name, "problem": problem}
        log.append(about_log("audit.anchor_failed", actor, environment, what))
    return Sealed(found, after + 1, tuple(places), failed, is_anchored)


def last_anchored(log: AuditLog) -> Record | None:
    """Return the record of the latest checkpoint that reached an anchor; None when none has, of the latest hundred.

    :param log: the log.
    :raises AuditUnavailableError: when the log does not answer.
    """
    records = log.facts(LOG, CHECKPOINTED, 100)
    return next((record for record in reversed(records) if (record.event["new"] or {}).get("anchored")), None)


def why_unanchored(log: AuditLog, now: datetime) -> str:
    """Return why checkpoints do not protect the log now; empty when they do.

    :param log: the log.
    :param now: the time, with a time zone.
    :raises AuditUnavailableError: when the log does not answer.
    """
    last = last_anchored(log)
    if last is None:
        return "no checkpoint has reached an anchor, so a cut end and a log that was written anew would not show"
    age = now - datetime.fromisoformat(last.recorded_at)
    if age <= LONGEST_WITHOUT:
        return ""
    return (
        f"no checkpoint has reached an anchor since {last.recorded_at}: what came after record "
        f"{last.event['new']['size']} could be cut unseen"
    )


def _begin(log: AuditLog, anchors: Sequence[Anchor], signer: Signer) -> Progress | None:
    """Return how far the log was verified, if an anchor says the same; None to begin anew.

    The log alone is not believed: whoever writes it anew would write this too.

    :raises EvidenceError: when an anchor has another checkpoint of this size.
    """
    last = last_anchored(log)
    if last is None:
        return None
    progress = Progress.of_json(last.event["new"])
    for anchor in anchors:
        try:
            note = anchor.read(progress.checkpoint.file)
        except AnchorError:
            continue  # it is reported when it is written
        if note is not None:
            return _agreed(progress, read_checkpoint(note, signer.public_pem.encode()), anchor)
    return None


def _agreed(progress: Progress, anchored: Checkpoint, anchor: Anchor) -> Progress:
    if anchored != progress.checkpoint:
        raise EvidenceError(
            f"{anchor.name} has a checkpoint of {anchored.size} records with root {anchored.root.hex()}, and the log "
            f"says root {progress.checkpoint.root.hex()}: one of them was written anew. No checkpoint was made; verify "
            "the log with every checkpoint that there is"
        )
    return progress
