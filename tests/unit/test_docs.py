"""README and docs are held to the code: examples, links, parameters, options, errors, operations and targets."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import struct
import textwrap
import xml.dom.minidom
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator

from airflow_mcp import exceptions
from airflow_mcp.get_provider_info import get_provider_info
from airflow_mcp.mlflow_client.operations import MlflowOperations, OperationMethod
from airflow_mcp.operators.base import ModelControlOperator
from tests.support.operator_classes import operator_classes
from tests.support.paths import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PYTHON_BLOCK = re.compile(r"(?:^<!-- (?P<comment>[^\n]*) -->\n)?^```python\n(?P<code>.*?)^```$", re.M | re.S)
PLACE = re.compile(r"from (?P<file>dags/[\w./]+): (?P<markers>\w+(?:, \w+)*)")
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
ROW = re.compile(r"^\| `(?P<name>\w+)` \|(?P<cells>.*)\|$", re.M)
NAMED_TEST = re.compile(r"\[`(test_\w+)`\]\(([^)]+\.py)\)")
MAX_IMAGE_BYTES = 300_000


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def region(source: str, marker: str) -> str:
    """Cut out what stands between ``[START marker]`` and ``[END marker]``."""
    start, end = f"# [START {marker}]\n", f"# [END {marker}]"
    if source.count(start) != 1 or source.count(end) != 1:
        raise ValueError(f"the region {marker} is not marked exactly once")
    inside = source.partition(start)[2].partition(end)[0]
    return textwrap.dedent(inside[: inside.rindex("\n") + 1])


def wrong_examples(text: str, sources: Mapping[str, str]) -> list[str]:
    """Compare every marked Python block with the regions of the Dag that its comment names."""
    problems = []
    for block in PYTHON_BLOCK.finditer(text):
        place = PLACE.fullmatch(block["comment"] or "")
        if place is None:
            continue
        if place["file"] not in sources:
            problems.append(f"{place['file']} does not exist")
            continue
        wanted = "".join(region(sources[place["file"]], marker) for marker in place["markers"].split(", "))
        if block["code"] != wanted.rstrip("\n") + "\n":  # after a function, its marker stands one line further down
            problems.append(f"differs from {place[0]}")
    return problems


def wrong_names(code: str) -> list[str]:
    """Find imports from the package that fail, and keyword arguments that what is imported does not take."""
    problems: list[str] = []
    imported: dict[str, Any] = {}
    tree = ast.parse(textwrap.dedent(code))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "airflow_mcp":
            for alias in node.names:
                found = _resolve(f"{node.module}.{alias.name}")
                imported[alias.asname or alias.name] = found
                problems += [] if found else [f"{node.module} has no {alias.name}"]
    for node in ast.walk(tree):
        called = imported.get(node.func.id) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
        if called is not None and isinstance(node, ast.Call):
            problems += [f"{called.__name__} takes no {word.arg}" for word in node.keywords if not _takes(called, word)]
    return problems


def _resolve(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute, None) or importlib.import_module(name)
    except ImportError:
        return None


def _takes(called: Any, word: ast.keyword) -> bool:
    if word.arg is None:
        return True
    if issubclass(called, BaseOperator) if inspect.isclass(called) else False:
        return any(word.arg in inspect.signature(kind.__init__).parameters for kind in called.__mro__)
    return word.arg in inspect.signature(called).parameters


def missing_places(text: str) -> list[str]:
    """Find modules and files of the package that a text names and that do not exist."""
    files = re.findall(r"\bairflow_mcp/[\w./]+\.\w+", text)
    modules = re.findall(r"(?<![\w./-])airflow_mcp(?:\.[a-z_]+)+(?:\.[A-Z]\w+)?(?![\w/-])", text)
    rooms = {path.stem for path in (ROOT / "airflow_mcp").iterdir()}
    named = [name for name in modules if name.split(".")[1] in rooms and not name.endswith(".py")]
    return [
        *(f"{file} does not exist" for file in files if not (ROOT / file).exists()),
        *(f"{name} does not exist" for name in named if _resolve(name) is None),
    ]


def anchors(text: str) -> set[str]:
    """Give the anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def broken_links(text: str, page: Path) -> list[str]:
    """Name the relative links and images that lead nowhere."""
    problems = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            problems.append(f"{target}: no such file")
        elif anchor and anchor not in anchors(text if file == page else file.read_text(encoding="utf-8")):
            problems.append(f"{target}: no such heading")
    return problems


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """Read the table below a heading: the name in its first cell to the other cells."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    found = ROW.finditer(section[1]) if section else ()
    return {row["name"]: [cell.strip() for cell in row["cells"].split(" | ")] for row in found}


def parameters(operator: type[ModelControlOperator]) -> dict[str, Any]:
    """Give every parameter that the package defines for an operator, with its default."""
    found: dict[str, Any] = {}
    for owner in operator.__mro__:
        if owner.__module__.startswith("airflow_mcp.") and "__init__" in owner.__dict__:
            for name, parameter in inspect.signature(owner.__dict__["__init__"]).parameters.items():
                if name != "self" and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                    found.setdefault(name, parameter.default)
    return found


def wrong_parameters(text: str, operator: type[ModelControlOperator]) -> list[str]:
    """Compare the table of parameters with the constructor: names, defaults, templating."""
    documented, actual = rows(text, "Parameters"), parameters(operator)
    problems = [f"{name} is not documented" for name in actual.keys() - documented.keys()]
    problems += [f"{name} is documented and does not exist" for name in documented.keys() - actual.keys()]
    for name in actual.keys() & documented.keys():
        _, default, templated, meaning = documented[name]
        if _default(default) != actual[name]:
            problems.append(f"{name} has the default {actual[name]!r}, documented is {default}")
        if templated != ("yes" if name in operator.template_fields else "no"):
            problems.append(f"{name}: templated is not {templated!r}")
        if not meaning:
            problems.append(f"{name} has no meaning")
    return sorted(problems)


def _default(cell: str) -> Any:
    return inspect.Parameter.empty if cell == "required" else eval(cell.strip("`"), {"timedelta": timedelta})


def page_of(operator: type[ModelControlOperator]) -> Path:
    words = re.findall(r"[A-Z][a-z]+", operator.__name__.removesuffix("Operator"))
    return ROOT / "docs" / "operators" / ("_".join(words).lower() + ".md")


def error_classes() -> set[str]:
    return {name for name, value in vars(exceptions).items() if inspect.isclass(value) and issubclass(value, Exception)}


OPERATORS = operator_classes()
SOURCES = {name_of(path): path.read_text(encoding="utf-8") for path in (ROOT / "dags").rglob("*.py")}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
class TestEveryPage:
    def test_quotes_the_dags_as_they_are(self, page: Path) -> None:
        assert wrong_examples(page.read_text(encoding="utf-8"), SOURCES) == []

    def test_links_to_what_exists(self, page: Path) -> None:
        assert broken_links(page.read_text(encoding="utf-8"), page) == []

    def test_names_tests_that_exist(self, page: Path) -> None:
        for name, place in NAMED_TEST.findall(page.read_text(encoding="utf-8")):
            assert f"def {name}(" in (page.parent / place).read_text(encoding="utf-8"), name

    def test_has_python_that_compiles(self, page: Path) -> None:
        for block in PYTHON_BLOCK.finditer(page.read_text(encoding="utf-8")):
            assert compile(block["code"], name_of(page), "exec") is not None

    def test_has_python_with_names_that_exist(self, page: Path) -> None:
        blocks = [block["code"] for block in PYTHON_BLOCK.finditer(page.read_text(encoding="utf-8"))]
        assert [problem for code in blocks for problem in wrong_names(code)] == []

    def test_names_modules_and_files_that_exist(self, page: Path) -> None:
        if page.name != "CHANGELOG.md":  # it tells what things were called
            assert missing_places(page.read_text(encoding="utf-8")) == []

    def test_has_one_title_and_closed_fences(self, page: Path) -> None:
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"^# ", FENCED.sub("", text), re.M)) == 1
        assert text.count("\n```") % 2 == 0

    def test_can_be_reached_from_the_readme(self, page: Path) -> None:
        reached, waiting = set(), [ROOT / "README.md"]
        while waiting:
            here = waiting.pop()
            reached.add(here)
            targets = re.findall(r"\]\(([^)\s#:]+\.md)", here.read_text(encoding="utf-8"))
            linked = {(here.parent / target).resolve() for target in targets}
            waiting += linked - reached
        assert page in reached, "link it from docs/index.md"


@pytest.mark.parametrize(("page", "folder"), [("README.md", "docs/operators"), ("docs/index.md", "operators")])
def test_every_operator_is_listed_exactly_once(page: str, folder: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(rf"\[(\w+Operator)\]\({folder}/(\w+\.md)\)", text)
    assert sorted(links) == [(operator.__name__, page_of(operator).name) for operator in OPERATORS]


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
class TestEveryOperator:
    def test_has_every_parameter_on_its_page_with_default_and_templating(
        self, operator: type[ModelControlOperator]
    ) -> None:
        assert wrong_parameters(page_of(operator).read_text(encoding="utf-8"), operator) == []

    def test_says_what_a_retry_does(self, operator: type[ModelControlOperator]) -> None:
        text = page_of(operator).read_text(encoding="utf-8")
        assert text.startswith(f"# {operator.__name__}\n")
        assert f"from {operator.__module__} import {operator.__name__}`" in text
        assert "## XCom" in text
        assert "| what happened | task | MLflow | what a retry does |" in text
        assert "## Errors" in text

    def test_has_an_example_from_a_dag(self, operator: type[ModelControlOperator]) -> None:
        examples = list(PYTHON_BLOCK.finditer(page_of(operator).read_text(encoding="utf-8")))
        assert any(PLACE.fullmatch(block["comment"] or "") for block in examples)
        assert any(f"{operator.__name__}(" in block["code"] for block in examples)

    def test_is_linked_from_the_readme_the_index_and_the_table_of_retries(
        self, operator: type[ModelControlOperator]
    ) -> None:
        page = f"operators/{page_of(operator).name}"
        for name, prefix in (("README.md", "docs/"), ("docs/index.md", ""), ("docs/concepts.md", "")):
            assert f"[{operator.__name__}]({prefix}{page})" in (ROOT / name).read_text(encoding="utf-8"), name


class TestReferencePages:
    def test_every_page_about_an_operator_is_about_one_that_exists(self) -> None:
        assert {page_of(operator) for operator in OPERATORS} == set((ROOT / "docs" / "operators").glob("*.md"))
        assert len(OPERATORS) >= 9

    def test_every_option_is_documented_with_its_default(self) -> None:
        text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
        documented = {row["name"]: row["cells"].split("|")[0].strip(" `") for row in ROW.finditer(text)}
        options = get_provider_info()["config"]["airflow_mcp"]["options"]
        assert documented == {name: option["default"] for name, option in options.items()}

    def test_every_error_is_documented_in_the_tree_and_in_the_table(self) -> None:
        text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
        assert {row["name"] for row in ROW.finditer(text)} == error_classes()
        tree = re.search(r"```text\n(.*?)```", text, re.S)
        assert tree is not None
        assert set(re.findall(r"\b[A-Z]\w+Error\b", tree[1])) - {"ValueError", "RuntimeError"} == error_classes()

    @pytest.mark.parametrize(
        ("page", "connection"),
        list(
            zip(
                ("connections.md", "audit.md", "passport.md", "approvals.md", "rollouts.md", "prometheus.md"),
                get_provider_info()["connection-types"],
                strict=True,
            )
        ),
    )
    def test_every_field_of_the_connection_is_documented(self, page: str, connection: dict[str, Any]) -> None:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        assert set(re.findall(r"^\| extra `(\w+)`", text, re.M)) == set(connection.get("conn-fields", ()))
        for field in connection.get("conn-fields", {}).values():
            assert f"| {field['label']} |" in text

    def test_every_operation_of_the_hook_is_documented(self) -> None:
        documented = set(re.findall(r"^\| `(\w+)\(", (ROOT / "docs" / "hook.md").read_text(encoding="utf-8"), re.M))
        assert documented == {
            name for name, value in vars(MlflowOperations).items() if isinstance(value, OperationMethod)
        }

    def test_every_target_of_the_makefile_is_documented(self) -> None:
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
        documented = re.findall(
            r"^\| `make ([a-z-]+)` \|", (ROOT / "docs" / "development.md").read_text(encoding="utf-8"), re.M
        )
        assert sorted(documented) == sorted(targets)

    def test_every_dependency_is_explained(self) -> None:
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        table = project[project.index("\ndependencies = [") : project.index("[project.scripts]")]
        names = set(re.findall(r'^  "([A-Za-z0-9-]+)[>\[",]', table, re.M)) - {"airflow-mcp"}
        explained = set(
            re.findall(r"`([A-Za-z0-9-]+)`", (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8"))
        )
        assert len(names) > 10
        assert names <= explained

    def test_every_parameter_of_the_dags_is_documented(self) -> None:
        text = (ROOT / "docs" / "dags.md").read_text(encoding="utf-8")
        dags = {path: source for path, source in SOURCES.items() if path.count("/") == 1}  # below: what workloads run
        for path, source in dags.items():
            names = set(re.findall(r'^ +"(\w+)": Param\(', source, re.M))
            assert names or "load_model_pipelines" in source or path == "dags/audit_keeper.py", (
                path
            )  # nobody triggers that one
            assert set(rows(text, f"`{Path(path).stem}`")) == names, path

    def test_the_quickstart_builds_its_dag(self) -> None:
        text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
        (code,) = (b["code"] for b in PYTHON_BLOCK.finditer(text) if b["comment"] == "checked: builds a Dag")
        names: dict[str, Any] = {"__file__": "/dags/wine.py"}
        exec(compile(code, "quickstart.md", "exec"), names)
        dag = names["promote"].dag
        assert isinstance(dag, DAG)
        assert list(dag.task_dict) == [
            "pin_data",
            "train",
            "evaluate",
            "gate",
            "register",
            "load_check",
            "promote",
        ]

    def test_images_are_small_and_readable(self) -> None:
        for image in (ROOT / "docs" / "images").iterdir():
            assert image.stat().st_size < MAX_IMAGE_BYTES, image.name
            if image.suffix == ".svg":
                drawing = xml.dom.minidom.parse(str(image)).documentElement
                assert drawing is not None
                assert drawing.getElementsByTagName("title"), image.name
                assert "prefers-color-scheme: dark" in image.read_text(encoding="utf-8")
            else:
                head = image.read_bytes()[:24]
                assert head.startswith(b"\x89PNG"), image.name
                assert min(struct.unpack(">II", head[16:24])) >= 200, image.name


def test_every_reference_in_a_docstring_leads_somewhere() -> None:
    gone = [
        f"{path.relative_to(ROOT)}: {reference} does not exist"
        for path in sorted((ROOT / "airflow_mcp").rglob("*.py"))
        for reference in re.findall(r":\w+:`~?(airflow_mcp\.[\w.]+?)(?:\(\))?`", path.read_text(encoding="utf-8"))
        if _resolve(reference) is None and _resolve(reference.rpartition(".")[0]) is None
    ]
    assert gone == []


class TestTheChecksCanFail:
    DAG = "x\n    # [START one]\n    a = 1\n    # [END one]\n    # [START two]\n    b = 2\n    # [END two]\n"

    @pytest.mark.parametrize(
        ("code", "markers", "problems"),
        [
            ("a = 1\n", "one", 0),
            ("a = 1\nb = 2\n", "one, two", 0),
            ("a = 2\n", "one", 1),
            ("a = 1\n", "one, two", 1),
            ("", "one", 1),
        ],
    )
    def test_an_example_that_differs_is_found(self, code: str, markers: str, problems: int) -> None:
        text = f"text\n<!-- from dags/d.py: {markers} -->\n```python\n{code}```\n"
        assert len(wrong_examples(text, {"dags/d.py": self.DAG})) == problems

    def test_an_example_of_a_file_or_region_that_is_gone_is_found(self) -> None:
        text = "<!-- from dags/d.py: three -->\n```python\na = 1\n```\n"
        assert wrong_examples(text, {}) == ["dags/d.py does not exist"]
        with pytest.raises(ValueError, match="three is not marked exactly once"):
            wrong_examples(text, {"dags/d.py": self.DAG})

    def test_a_name_that_does_not_exist_is_found(self) -> None:
        code = "from airflow_mcp.operators.training import TrainModelOperator, Nothing\n"
        used = code.replace(", Nothing", "") + "TrainModelOperator(task_id='a', retries=1, experiment='b')\n"
        assert wrong_names(code) == ["airflow_mcp.operators.training has no Nothing"]
        assert wrong_names(used) == ["TrainModelOperator takes no experiment"]
        assert wrong_names("from airflow_mcp.gone import f") == ["airflow_mcp.gone has no f"]

    def test_a_module_that_does_not_exist_is_found(self) -> None:
        text = "`airflow_mcp/core/gone.py`, `python -m airflow_mcp.work train`, airflow_mcp.core.gate.policy.GatePolicy"
        assert missing_places(text) == ["airflow_mcp/core/gone.py does not exist"]
        assert missing_places("airflow_mcp.core.gate.GatePolicy") != []

    def test_a_link_that_leads_nowhere_is_found(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        (tmp_path / "there.md").write_text("# There\n## It is `so`, yes\n")
        page.write_text("# Here\n")
        good = "# Here\n[a](there.md) [b](there.md#it-is-so-yes) [c](#here) [d](https://example.com/x)"
        assert broken_links(good, page) == []
        bad = "# Here\n[a](gone.md) [b](there.md#not) [c](#there) ![d](gone.png)"
        assert len(broken_links(bad, page)) == 4

    def test_a_parameter_that_is_wrong_missing_or_invented_is_found(self) -> None:
        operator = next(found for found in OPERATORS if found.__name__ == "PinDatasetOperator")
        text = page_of(operator).read_text(encoding="utf-8")
        assert wrong_parameters(text, operator) == []
        for old, new, problem in (
            ("| `root` |", "| `rot` |", "root is not documented"),
            ("| `root` |", "| `rot` |", "rot is documented and does not exist"),
            ("`'latest'` | yes", "`'newest'` | yes", "version has the default 'latest', documented is `'newest'`"),
            ("`'latest'` | yes", "`'latest'` | no", "version: templated is not 'no'"),
        ):
            assert old in text
            assert problem in wrong_parameters(text.replace(old, new), operator)
