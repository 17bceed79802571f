"""What the doctor concludes about the rights in a namespace."""

from __future__ import annotations

import yaml

from airflow_mcp.core.doctor.cluster_rights import RIGHTS, judge_rights
from airflow_mcp.core.doctor.diagnosis import worst
from tests.support.paths import DOCS


def allowed(*denied: tuple[str, str]) -> dict[tuple[str, str], bool]:
    return {(resource, verb): (resource, verb) not in denied for resource, verbs in RIGHTS.items() for verb in verbs}


def test_a_missing_right_is_named_with_its_resource_and_namespace() -> None:
    findings = judge_rights(allowed(("pods", "create"), ("pods", "delete")), "ml")
    (problem,) = [finding for finding in findings if finding.level != "ok"]
    assert (problem.subject, problem.level) == ("right: pods", "problem")
    assert problem.says == "may not create, delete in namespace 'ml'"
    assert '["create", "delete"] on pods' in problem.advice


def test_a_right_that_is_only_convenient_is_a_warning() -> None:
    levels = {finding.subject: finding.level for finding in judge_rights(allowed(("events", "watch")), "ml")}
    assert levels.pop("right: events") == "warning"
    assert set(levels.values()) == {"ok"}
    assert worst(judge_rights(allowed(("events", "watch"), ("events", "list")), "ml")) == "problem"


def test_the_role_in_the_documentation_grants_exactly_the_rights_that_are_checked() -> None:
    page = (DOCS / "kubernetes.md").read_text(encoding="utf-8")
    block = page.split("<!-- rbac: start -->")[1].split("<!-- rbac: end -->")[0].strip()
    documents = yaml.safe_load_all(block.removeprefix("```yaml").removesuffix("```"))
    (role,) = [document for document in documents if document["kind"] == "Role"]
    granted = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert granted == set(allowed())
    assert all(rule["apiGroups"] == [""] for rule in role["rules"])
