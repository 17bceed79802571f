"""``airflow-mcp policy``: check, propose, activate and show the policy that decides who may move models."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path

import yaml

from airflow_mcp.audit.stores import open_log
from airflow_mcp.cli.governance import person, require_checked, required_settings
from airflow_mcp.cli.options import add_action, add_format, print_answer
from airflow_mcp.cli.registry_server import require_reason
from airflow_mcp.core.access.decision import AccessRules, principal_of_account
from airflow_mcp.core.access.in_force import (
    activation_event,
    proposal_events,
    read_in_force,
    read_proposal,
    require_second_person,
)
from airflow_mcp.core.access.lint import doubts
from airflow_mcp.core.access.policy import GovernancePolicy, read_policy
from airflow_mcp.core.approvals.seats import chain_mistakes
from airflow_mcp.core.pipeline.file.document import write_path
from airflow_mcp.exceptions import AccessRefusedError, InvalidArgumentError, PipelineSpecError


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = command.add_subparsers(dest="action", required=True)
    add_action(actions, "template", "print a policy with ten roles to begin with", _template)
    check = add_action(actions, "check", "list every mistake and doubt in a policy file", _check)
    check.add_argument("file", help="policy file, YAML or JSON")
    add_format(check)
    propose = add_action(
        actions, "propose", "record the text of a policy file, for another person to activate", _propose
    )
    propose.add_argument("file", help="policy file, YAML or JSON")
    propose.add_argument("--reason", required=True, help="why; recorded")
    add_format(propose)
    activate = add_action(actions, "activate", "put a policy in force that another person has proposed", _activate)
    activate.add_argument("digest", help="what propose printed: sha256:...")
    activate.add_argument("--reason", required=True, help="why; recorded")
    add_format(activate)
    add_format(add_action(actions, "show", "print the policy in force", _show))


def run(parsed: argparse.Namespace) -> int:
    """Run the action; 1 means that the file has mistakes, or that no policy is in force."""
    return int(parsed.answer(parsed))


def _template(_: argparse.Namespace) -> int:
    print((Path(__file__).parent / "scaffold" / "policy.yaml").read_text(encoding="utf-8"), end="")
    return 0


def _check(parsed: argparse.Namespace) -> int:
    try:
        policy = _read(parsed.file)
    except PipelineSpecError as error:
        problems = [problem._asdict() for problem in error.problems]
        print_answer(parsed, {"valid": False, "problems": problems}, [str(error)])
        return 1
    found = [{"field": write_path(path), "message": message} for path, message in doubts(policy)]
    lines = [f"{parsed.file}: {each['field']}: {each['message']}" for each in found]
    document = {"valid": True, "digest": policy.digest, "doubts": found}
    print_answer(parsed, document, [*lines, f"{parsed.file}: valid, {policy.digest}"])
    return 0


def _read(file: str) -> GovernancePolicy:
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise InvalidArgumentError(f"file must be a readable file; got {file!r}: {error.strerror}") from None
    return read_policy(data, file, (chain_mistakes,))


def _propose(parsed: argparse.Namespace) -> int:
    require_reason(parsed.reason)
    policy, settings, caller = _read(parsed.file), required_settings(), person()
    require_checked(caller, settings.environment, "changes a policy")
    with closing(open_log(settings)) as log:
        for event in proposal_events(policy, caller, settings.environment, parsed.reason):
            log.append(event)
    lines = (
        f"proposed by {caller.name}: {policy.digest}",
        "another person activates it: airflow-mcp policy activate DIGEST",
    )
    print_answer(parsed, {"digest": policy.digest, "proposed_by": caller.name}, lines)
    return 0


def _activate(parsed: argparse.Namespace) -> int:
    require_reason(parsed.reason)
    settings, caller = required_settings(), person()
    require_checked(caller, settings.environment, "changes a policy")
    with closing(open_log(settings)) as log:
        before, proposal = read_in_force(log), read_proposal(log, parsed.digest)
        # The new text must not make two people of one.
        for policy in (proposal.policy, *([before.policy] if before else [])):
            require_second_person(policy, proposal.by, caller.name)
        # The first policy has no policy before it: its own bindings decide.
        rules = before.policy if before else proposal.policy
        decision = AccessRules(rules).allowed(principal_of_account(rules, caller.name), "policy", "activate")
        if not decision.granted:
            raise AccessRefusedError(f"{decision.by}. Nothing was activated")
        log.append(activation_event(proposal, before, caller, settings.environment, parsed.reason))
    print_answer(parsed, {"in_force": proposal.policy.digest}, [f"in force: {proposal.policy.digest}"])
    return 0


def _show(parsed: argparse.Namespace) -> int:
    settings = required_settings()
    with closing(open_log(settings)) as log:
        found = read_in_force(log)
    if found is None:
        print("no policy is in force")
        return 1
    document = json.loads(found.policy.text)
    if parsed.format == "json":
        print(json.dumps({"digest": found.digest, "seq": found.seq, "policy": document}, indent=2))
    else:
        print(f"# {found.digest}, activated by seq {found.seq}")
        print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), end="")
    return 0
