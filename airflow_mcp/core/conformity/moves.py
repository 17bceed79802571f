"""Checks every move in a log: it has an intent, and where a policy was in force its clearance and valid votes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from airflow_mcp.core.access.in_force import ACTIVATED, PolicyInForce, read_in_force
from airflow_mcp.core.access.in_force import SUBJECT as POLICY
from airflow_mcp.core.approvals.events import DELEGATIONS, REQUESTED, ReleaseKey, time_of
from airflow_mcp.core.approvals.policy import RELEASE, ApprovalPolicy, ApprovedAct
from airflow_mcp.core.approvals.state import ApprovalFacts, declared_risk, state_of
from airflow_mcp.core.audit.moves import MOVED, model_subject
from airflow_mcp.core.audit.record import Record, read_record
from airflow_mcp.exceptions import ModelControlPlaneError

_BEGIN = b'"event":{"action":"'
_KEPT = ("policy.", "approval.", "delegation.", "passport.issued")
"""Beginnings of the actions that a decision may rest on."""
_STEP = "rollout.step"
_READ = tuple(action.encode() for action in (*_KEPT, "registry.move_intended", MOVED, _STEP))
_ROLLBACK: ApprovedAct = "rollback"
_BACK = "-back"
"""End of the identity of the move with which a rollout goes back; before it stands the identity of the rollout."""
_MOST_FOUND = 1000
"""Findings that are kept; a log with more is not read for the rest."""


class Finding(NamedTuple):
    """A move that does not follow the policy."""

    seq: int
    problem: str


class MoveCheck:
    """Checks the moves of one log as its records go by.

    It keeps what decisions may rest on: policies, requests, votes and delegations, rollbacks, one intent for each
    model, and the stable version of each rollout.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.moves = 0
        """Moves that were checked."""
        self.late = 0
        """Moves among them that were recorded afterwards."""
        self._kept = _Kept()
        self._intents: dict[str, dict[int, Record]] = {}
        """Intents without an outcome, by subject."""
        self._stable: dict[tuple[str, str], str] = {}
        """Subject and identity of each rollout, to the version that was champion when it began."""
        self._in_force: PolicyInForce | None = None

    def watched(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yield lines as they are, after looking at those that say something about moves.

        :param lines: the records from the first one on.
        """
        for line in lines:
            start = line.find(_BEGIN, 0, 400)
            if start >= 0 and line.startswith(_READ, start + len(_BEGIN)):
                self._take(line)
            yield line

    def _take(self, line: bytes) -> None:
        try:
            record = read_record(line.decode())
            action = record.event["action"]
            if action == "registry.move_intended":
                self._intents.setdefault(record.event["subject"], {})[record.seq] = record
                self._check_intent(record)
            elif action == MOVED:
                self._check_outcome(record)
                if (record.event.get("new") or {}).get("action") == _ROLLBACK:
                    self._kept.add(record)  # it uses its approval up
            elif action.startswith(_STEP):
                step = record.event["new"] or {}
                self._stable.setdefault((record.event["subject"], step["rollout"]), step["stable"])
            else:
                self._kept.add(record)
                if action == ACTIVATED:
                    self._activate(record)
        except (ModelControlPlaneError, KeyError, TypeError, ValueError, AttributeError) as error:
            # A record that a writer's login forged may say anything; what is not a record, the verification finds.
            self._find(_seq_of(line), f"cannot be read as what it says it is: {type(error).__name__}: {error}")

    def _activate(self, record: Record) -> None:
        self._in_force = None  # if the policy cannot be used, every move under it is found
        self._in_force = read_in_force(self._kept)
        if self._in_force is not None and self._in_force.seq != record.seq:
            self._find(record.seq, "activates a policy, and is not the latest record that does")

    # --- intents -----------------------------------------------------------------------------------------------------

    def _check_intent(self, record: Record) -> None:
        """Check that an intent rests on the policy in force, and on its votes; a rollback only where it needs votes."""
        event, policy = record.event, self._in_force
        action = event["new"].get("action")
        if action == _ROLLBACK:
            if policy is None or not ApprovalPolicy.of(policy.policy).asks(_ROLLBACK):
                return
            if event["new"].get("automatic"):
                self._check_automatic(record)
                return
        if policy is None:
            if self._kept.facts(POLICY, ACTIVATED):
                self._find(record.seq, f"{action} under a policy that cannot be used")
            return
        if event["inputs"].get("policy") != policy.digest or policy.seq not in event["refs"]:
            self._find(
                record.seq,
                f"{action} does not rest on policy {policy.digest}, which seq {policy.seq} had put in force",
            )
            return
        if problem := self._why_not_granted(record, policy):
            self._find(record.seq, f"{action} without valid votes: {problem}")

    def _check_automatic(self, record: Record) -> None:
        """Check that a rollback for which nobody was asked belongs to a rollout, and goes where that one began."""
        new = record.event["new"]
        rollout, found = new["move"].removesuffix(_BACK), new["move"].endswith(_BACK)
        if not found or self._stable.get((record.event["subject"], rollout)) != new["champion"]:
            self._find(
                record.seq,
                f"rollback without votes: it is said to be made by a rollout, but no rollout {rollout} that began from "
                f"version {new['champion']} is recorded before it",
            )

    def _why_not_granted(self, record: Record, in_force: PolicyInForce) -> str:
        event, policy = record.event, ApprovalPolicy.of(in_force.policy)
        act: ApprovedAct = _ROLLBACK if event["new"].get("action") == _ROLLBACK else RELEASE
        if not policy.asks(act):
            return ""
        passport = event["inputs"].get("passport", "")
        if not passport:
            return "it names no passport"
        if not self._kept.facts(f"passport:{passport.removeprefix('sha256:')}", "passport.issued"):
            return f"passport {passport} was not issued before"
        key = ReleaseKey(event["subject"].removeprefix("model:"), event["environment"], passport, act)
        facts = self._facts(key)
        state = state_of(facts, key, policy, time_of(record))
        risk = policy.risk_of(key.model_name, declared_risk(facts, key))
        rule = policy.rule_for(key.environment, risk, key.model_name, act)
        if state.request is None and not rule.chain:
            return ""
        if state.status != "granted":
            return f"the request is {state.status}{f', {state.reason}' if state.reason else ''}"
        missing = sorted({vote.vote.seq for vote in state.approvals} - set(event["refs"]))
        return f"it does not name the votes {', '.join(map(str, missing))}" if missing else ""

    def _facts(self, key: ReleaseKey) -> ApprovalFacts:
        return ApprovalFacts(
            self._kept.facts(model_subject(key.model_name), REQUESTED),
            self._kept.facts(key.subject, "approval."),
            self._kept.facts(DELEGATIONS),
            self._kept.facts(model_subject(key.model_name), MOVED) if key.act == _ROLLBACK else (),
        )

    # --- outcomes ----------------------------------------------------------------------------------------------------

    def _check_outcome(self, record: Record) -> None:
        """Check that a move that was made was intended."""
        event = record.event
        self.moves += 1
        if event.get("erased"):
            return
        new, intents = event["new"], self._intents.get(event["subject"], {})
        if event["late"]:
            self.late += 1
            if self._in_force is not None and new.get("action") != _ROLLBACK and new.get("at", "") > self._since():
                self._find(record.seq, f"{new.get('action')} was made without an intent while a policy was in force")
            return
        intent = next((intents[seq] for seq in event["refs"] if seq in intents), None)
        if intent is None:
            self._find(record.seq, f"{new.get('action')} was made, and no record before says that it was intended")
            return
        if not intent.event.get("erased") and any(
            intent.event["new"].get(name) != new.get(name) for name in ("move", "action", "champion")
        ):
            self._find(record.seq, f"{new.get('action')} is not the one that seq {intent.seq} intended")
        for seq in [seq for seq in intents if seq <= intent.seq]:
            del intents[seq]  # a later move has an intent of its own

    def _since(self) -> str:
        """Return when the policy in force was activated: a move before that needed nothing."""
        records = self._kept.facts(POLICY, ACTIVATED, 1)
        return records[-1].recorded_at if records else ""

    def _find(self, seq: int, problem: str) -> None:
        if len(self.findings) < _MOST_FOUND:
            self.findings.append(Finding(seq, f"seq {seq}: {problem}"))


class _Kept:
    """The records that decisions rest on, as the code of decisions reads them."""

    name = "export"

    def __init__(self) -> None:
        self._of: dict[str, list[Record]] = {}

    def add(self, record: Record) -> None:
        """Keep a record, without its line."""
        if not record.event.get("erased"):  # an erased vote counts no more
            self._of.setdefault(record.event["subject"], []).append(replace(record, line=""))

    def facts(self, subject: str, action_prefix: str = "", last: int = 0) -> list[Record]:
        """Return the records of a subject so far, oldest first."""
        found = [record for record in self._of.get(subject, ()) if record.event["action"].startswith(action_prefix)]
        return found[-last:] if last else found


def _seq_of(line: bytes) -> int:
    tail = line.rstrip(b"}\r\n").rpartition(b":")[2]
    return int(tail) if tail.isdigit() else 0
