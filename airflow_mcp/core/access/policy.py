"""Documents of ``kind: GovernancePolicy``: people, roles, who holds them, and what counts as high risk.

The sections ``approvals`` and ``notify`` are kept as the mappings that the file holds: ``airflow_mcp.core.approvals``
reads ``policy.spec.approvals``, the rules in order. Who may hold a seat is answered by :meth:`PolicySpec.person_of`,
:meth:`PolicySpec.holders` and :meth:`PolicySpec.superior_of`. A mistake in a rule is a :data:`Problem` at the path
``("spec", "approvals", number, ...)``; :func:`read_policy` takes functions that find such mistakes as ``checks``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, time
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from airflow_mcp.core.argument import problems_of, shown
from airflow_mcp.core.code.tag_signers import TagSigners, why_no_key
from airflow_mcp.core.identity import canonical_json, content_hash
from airflow_mcp.core.pipeline.file.document import Node, read_document
from airflow_mcp.core.pipeline.file.fields import Flag, SpecModel, Text, Whole
from airflow_mcp.core.pipeline.file.validation import problem_at, validate
from airflow_mcp.exceptions import EvidenceError, PipelineSpecError, SpecProblem

Risk = Literal["low", "medium", "high"]
RISKS: tuple[Risk, ...] = ("low", "medium", "high")
"""From the lowest to the highest."""
PolicyPath = tuple[str | int, ...]
Problem = tuple[PolicyPath, str]
"""Where a problem is, and what is wrong there."""


def _short_permission(value: Any) -> Any:
    """Read ``vm:instance/read`` as a resource and an action."""
    if not isinstance(value, str):
        return value
    resource, separator, action = value.rpartition("/")
    if not separator:
        raise ValueError(f"must be RESOURCE/ACTION, for example model:*/read; got {shown(value)}")
    return {"resource": resource, "action": action}


def _roles_by_name(value: Any) -> Any:
    """Read a list of ``{role: NAME, permissions: [...]}`` as a mapping by name."""
    if not isinstance(value, list | tuple):
        return value
    roles: dict[str, Any] = {}
    for number, item in enumerate(value):
        if not isinstance(item, Mapping) or not isinstance(item.get("role"), str):
            what = f"entry {number} must be a mapping with a role; got {shown(item)}"
            raise ValueError(what)  # noqa: TRY004  (pydantic reports only a ValueError as a problem of the file)
        if item["role"] in roles:
            raise ValueError(f"role {item['role']!r} is there twice")
        roles[item["role"]] = {name: each for name, each in item.items() if name != "role"}
    return roles


class Metadata(SpecModel):
    """Name and number of a policy."""

    name: Text = Field(description="Name of the policy.")
    version: Annotated[Whole, Field(ge=1)] = Field(1, description="Number of this text, for people; raise it.")


class Person(SpecModel):
    """One human being, whatever accounts they have."""

    accounts: tuple[Text, ...] = Field((), description="Names of their accounts in Airflow. Empty: that of the person.")
    superior: Text | None = Field(None, description="Who is asked when they do not answer.")
    ids: dict[Text, Text] = Field(
        default_factory=dict,
        description="ID of their account in an auth manager, such as fab: '12', where that is not the name.",
    )
    git_emails: tuple[Text, ...] = Field((), description="Addresses that their commits carry.")
    signing_keys: tuple[Annotated[str, Field(min_length=1, max_length=20_000)], ...] = Field(
        (), description="Public keys with which they sign tags: lines of SSH keys, or armoured GPG key blocks."
    )


class Permission(SpecModel):
    """What a role may do."""

    resource: Text = Field(
        description="What is acted on, such as model:churn, environment:dev or audit; * is any text."
    )
    action: Text = Field(description="What is done, such as promote; * is every action that is not reserved.")


class Role(SpecModel):
    """A named set of permissions."""

    inherits: tuple[Text, ...] = Field((), description="Roles whose permissions this one has too.")
    permissions: tuple[Annotated[Permission, BeforeValidator(_short_permission)], ...] = Field(
        (), description="What it may do."
    )
    description: Annotated[str, Field(max_length=1000)] = Field("", description="For people.")


class Binding(SpecModel):
    """Who holds a role."""

    role: Text = Field(description="The role.")
    people: tuple[Text, ...] = Field((), description="People of this policy.")
    pipelines: tuple[Text, ...] = Field((), description="Dags that act for nobody, by schedule or by an asset.")
    airflow_roles: tuple[Text, ...] = Field(
        (), description="Roles of Airflow's auth manager. They count on the page only: a worker does not know them."
    )


class RiskFloor(SpecModel):
    """The least risk of some models; a pipeline may declare more."""

    models: tuple[Text, ...] = Field(min_length=1, description="Names of models; * is any text.")
    risk: Risk = Field(description="The least risk.")


class ReleaseTags(SpecModel):
    """Whose signature the release tags of some models need."""

    models: tuple[Text, ...] = Field(("*",), min_length=1, description="Names of models; * is any text.")
    signed_by: tuple[Text, ...] = Field(
        min_length=1, description="role:<role> or people; the tag needs the signature of one of them."
    )


class SigningKey(SpecModel):
    """A key whose signatures count."""

    id: Text = Field(description="ID of the key in signatures.")
    algorithm: Literal["ed25519"] = Field("ed25519", description="Algorithm of the key.")
    public: Annotated[str, Field(min_length=1, max_length=2000)] = Field(description="The public key, PEM.")
    use: tuple[Literal["passport", "clearance", "answer", "checkpoint"], ...] = Field(
        min_length=1, description="What it may sign."
    )
    from_: str = Field("", alias="from", description="First day, or time in ISO 8601, of its signatures.")
    until: str | None = Field(None, description="Day, or time in ISO 8601, after which it signs nothing new.")
    revoked: Flag = Field(False, description="Whether nothing counts that it ever signed.")


class PolicySpec(SpecModel):
    """What a policy says."""

    people: dict[Text, Person] = Field(default_factory=dict, description="Everybody who acts, by a short name.")
    roles: Annotated[dict[Text, Role], BeforeValidator(_roles_by_name)] = Field(
        default_factory=dict, description="Roles by name."
    )
    bindings: tuple[Binding, ...] = Field((), description="Who holds which role.")
    risk_floor: tuple[RiskFloor, ...] = Field((), description="The least risk of models; the first that fits counts.")
    approvals: tuple[dict[str, Any], ...] = Field(
        (), description="Rules that say who is asked; the first that fits counts."
    )
    notify: tuple[dict[str, Any], ...] = Field((), description="Who is told.")
    release_tags: tuple[ReleaseTags, ...] = Field(
        (), description="Who signs release tags; the first that fits counts. Models without one need no signature."
    )
    keys: tuple[SigningKey, ...] = Field((), description="Keys whose signatures count.")

    def tag_signers(self, model_name: str) -> TagSigners | None:
        """Return whose signature the release tag of a model needs; None when it needs none.

        :param model_name: registered model.
        """
        for rule in self.release_tags:
            if any(fnmatchcase(model_name, pattern) for pattern in rule.models):
                return TagSigners({name: self.people[name].signing_keys for name in self.signers_of(rule)})
        return None

    def signers_of(self, rule: ReleaseTags) -> tuple[str, ...]:
        """Return the people whose signature counts, each once."""
        found: dict[str, None] = {}
        for name in rule.signed_by:
            found |= dict.fromkeys(self.holders(role) if (role := _role_of(name)) else (name,))
        return tuple(found)

    def person_of(self, account: str) -> str | None:
        """Return the person that an account belongs to; None when the policy knows no such account.

        :param account: name of the account, as Airflow's auth manager gives it.
        """
        return self._by_account.get(account)

    @cached_property
    def _by_account(self) -> dict[str, str]:
        return {account: name for name, person in self.people.items() for account in person.accounts or (name,)}

    def superior_of(self, person: str) -> str | None:
        """Return who is asked when a person does not answer."""
        found = self.people.get(person)
        return found.superior if found else None

    def holders(self, role: str) -> tuple[str, ...]:
        """Return the people who hold a role itself, in the order of the policy; inheriting a role is not holding it.

        :param role: the role.
        """
        return self._holders.get(role, ())

    @cached_property
    def _holders(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, dict[str, None]] = {}
        for binding in self.bindings:
            found.setdefault(binding.role, {}).update(dict.fromkeys(binding.people))
        return {role: tuple(people) for role, people in found.items()}


class GovernancePolicy(SpecModel):
    """A document of ``kind: GovernancePolicy``."""

    api_version: Literal["mcp.example.com/v1"] = Field(description="mcp.example.com/v1")
    kind: Literal["GovernancePolicy"] = Field(description="GovernancePolicy")
    metadata: Metadata = Field(description="Name and number of the policy.")
    spec: PolicySpec = Field(description="What the policy says.")

    @cached_property
    def text(self) -> str:
        """The policy as canonical JSON: what the log keeps. Comments and the order of names are not in it."""
        return canonical_json(self.model_dump(mode="json", by_alias=True, exclude_defaults=True))

    @cached_property
    def digest(self) -> str:
        """``sha256:`` of :attr:`text`; equal policies have equal digests."""
        return content_hash(self.text.encode())


Check = Callable[[GovernancePolicy], Iterator[Problem]]
"""Yields the mistakes in a section of a policy that has valid fields."""


def read_policy(data: bytes, file: str, checks: tuple[Check, ...] = ()) -> GovernancePolicy:
    """Read a policy file, YAML or JSON.

    :param data: bytes of the file.
    :param file: its name, for the places of problems.
    :param checks: further checks, such as those of the approvals.
    :raises PipelineSpecError: with every problem and its place.
    """
    problems: list[SpecProblem] = []
    node = read_document(data, file, problems)
    if node is None or problems:
        raise PipelineSpecError(problems)
    policy = validate(GovernancePolicy, node, problems)
    if policy is not None:
        problems += _placed(policy, node, (_mistakes, *checks))
    if policy is None or problems:
        raise PipelineSpecError(problems)
    return policy


def policy_from_text(text: str, source: str) -> GovernancePolicy:
    """Read a policy as :attr:`GovernancePolicy.text` has it.

    :param text: canonical JSON.
    :param source: where it comes from, for the message.
    :raises EvidenceError: when it is not a policy without mistakes.
    """
    try:
        policy = GovernancePolicy.model_validate_json(text)
    except ValidationError as error:
        raise EvidenceError(
            f"{source} is not a policy: {problems_of(error, 'the document', GovernancePolicy)}"
        ) from None
    if mistake := next(_mistakes(policy), None):
        raise EvidenceError(f"{source} is not a policy: {mistake[1]}")
    return policy


def _placed(policy: GovernancePolicy, node: Node, checks: tuple[Check, ...]) -> Iterator[SpecProblem]:
    for check in checks:
        for path, message in check(policy):
            yield problem_at(node, path, message)


def _mistakes(policy: GovernancePolicy) -> Iterator[Problem]:
    """Yield what makes a policy unusable: names that do not exist, accounts of two people, roles in a circle."""
    spec = policy.spec
    yield from _account_mistakes(spec)
    yield from _role_mistakes(spec)
    yield from _signer_mistakes(spec)
    for number, key in enumerate(spec.keys):
        for field, value in (("from", key.from_), ("until", key.until)):
            if value and not _is_time(value):
                yield ("spec", "keys", number, field), f"must be a day or a time in ISO 8601; got {value!r}"


def _signer_mistakes(spec: PolicySpec) -> Iterator[Problem]:
    for name, person in spec.people.items():
        for number, key in enumerate(person.signing_keys):
            if problem := why_no_key(key):
                yield ("spec", "people", name, "signingKeys", number), problem
    for number, rule in enumerate(spec.release_tags):
        path = ("spec", "releaseTags", number, "signedBy")
        unknown = [name for name in rule.signed_by if name not in spec.people and _role_of(name) not in spec.roles]
        for name in unknown:
            yield path, f"must be people of this policy, or role:<role>; got {name!r}"
        if not unknown and not any(spec.people[name].signing_keys for name in spec.signers_of(rule)):
            yield path, "must name somebody with signingKeys: nobody could sign a release"


def _role_of(name: str) -> str:
    """Return the role that ``role:<role>`` names; empty for a person."""
    return name.removeprefix("role:") if name.startswith("role:") else ""


def _role_mistakes(spec: PolicySpec) -> Iterator[Problem]:
    for number, binding in enumerate(spec.bindings):
        path = ("spec", "bindings", number)
        if binding.role not in spec.roles:
            yield (*path, "role"), f"must be a role of this policy; got {binding.role!r}"
        for person in binding.people:
            if person not in spec.people:
                yield (*path, "people"), f"must be people of this policy; got {person!r}"
    for name, role in spec.roles.items():
        for other in role.inherits:
            if other not in spec.roles:
                yield ("spec", "roles", name, "inherits"), f"must be roles of this policy; got {other!r}"
    for circle in _circles(spec.roles):
        yield ("spec", "roles", circle[0], "inherits"), f"roles inherit in a circle: {' -> '.join(circle)}"


def _account_mistakes(spec: PolicySpec) -> Iterator[Problem]:
    owner: dict[str, str] = {}
    for name, person in spec.people.items():
        if person.superior is not None and (person.superior not in spec.people or person.superior == name):
            yield (
                ("spec", "people", name, "superior"),
                f"must be another person of this policy; got {person.superior!r}",
            )
        for account in person.accounts or (name,):
            if owner.setdefault(account, name) != name:
                yield ("spec", "people", name), f"account {account!r} already belongs to {owner[account]!r}"


def _circles(roles: Mapping[str, Role]) -> Iterator[tuple[str, ...]]:
    """Yield each circle once, from its first role in order back to that role."""
    done: set[str] = set()
    for first in roles:
        way = [first]
        todo = [iter(roles[first].inherits)]
        while todo and first not in done:
            following = next(todo[-1], None)
            if following is None:
                done.add(way.pop())
                todo.pop()
            elif following in way:
                yield (*way[way.index(following) :], following)
            elif following in roles and following not in done:
                way.append(following)
                todo.append(iter(roles[following].inherits))


def _is_time(value: str) -> bool:
    try:
        time_of(value)
    except ValueError:
        return False
    return True


def time_of(value: str) -> datetime:
    """Return the time that a day or a time in ISO 8601 names, in UTC where it has no time zone.

    :param value: such as ``2026-11-01`` or ``2026-11-01T12:00:00+01:00``.
    :raises ValueError: when it is neither.
    """
    found = datetime.fromisoformat(value)
    return found if found.tzinfo else datetime.combine(found.date(), found.time() or time(), UTC)
