"""The rules between the layers, checked on the source text; each rule is first shown to fail on a bad text."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

import pytest

from tests.support.paths import ROOT
from tests.support.rooms import PAGE, ROOMS, may_import, written

PACKAGE = "airflow_mcp"

SHARED_BY_OPERATORS = {
    f"airflow_mcp.operators.{name}"
    for name in (
        *("audit_base", "base", "check", "feature_store", "ledger", "load_check", "release", "tracked_run"),
        "workload",
    )
} | {
    "airflow_mcp.operators.workload_environment",
    "airflow_mcp.operators.server_deployment",
}
WITHOUT_AIRFLOW = (
    *("exceptions", "get_provider_info", "core", "work", "mlflow_client", "registry", "cluster", "doctor", "cli"),
    "audit",
    "serving",
    "spans",
)
"""Top rooms, with what is below them, that work where Airflow is not installed."""
HEAVY = (
    *("mlflow", "evidently", "dvc", "pandas", "numpy", "scipy", "pyarrow", "sklearn"),
    *("kubernetes", "airflow.providers.cncf.kubernetes"),
)
HEAVY_LEAVES = (
    *("airflow_mcp.workloads.kubernetes_arguments", "airflow_mcp.workloads.kubernetes_companions"),
    *("airflow_mcp.workloads.kubernetes_errors", "airflow_mcp.workloads.kubernetes_group"),
    *("airflow_mcp.workloads.kubernetes_log", "airflow_mcp.workloads.kubernetes_objects"),
    *("airflow_mcp.workloads.kubernetes_pod", "airflow_mcp.workloads.kubernetes_replicas"),
    "airflow_mcp.workloads.kubernetes_target_run",
    *("airflow_mcp.triggers.pod", "airflow_mcp.triggers.replicas", "airflow_mcp.triggers.target"),
)
"""They import Kubernetes libraries with the module, and are imported inside functions only."""
SINKS = {"utils", "util", "helpers", "helper", "common", "misc"}
MAX_FUNCTION_LINES, MAX_MODULE_LINES = 50, 500


class Import(NamedTuple):
    """One import statement's target."""

    target: str
    line: int
    is_module_level: bool
    """Whether importing the module runs it: not in a function and not for type checkers only."""


class Source(NamedTuple):
    """One module of the package."""

    name: str
    """Dotted name."""
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def room(self) -> str:
        """The folder, or the module at the top of the package; empty for the package itself."""
        return room_of(self.name)

    @property
    def layer(self) -> str:
        """The top room."""
        return self.room.split("/")[0]


def room_of(target: str) -> str:
    """Find the room of a module, of a package, or of a name in a module."""
    parts = target.split(".")[1:]
    while parts and "/".join(parts) not in ROOMS:
        parts = parts[:-1]
    return "/".join(parts) or "/".join(target.split(".")[1:-1] or target.split(".")[1:])


def package() -> list[Source]:
    found = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append(Source(".".join(part for part in parts if part != "__init__"), path.read_text(encoding="utf-8")))
    return found


MODULES = package()
NAMES = {module.name for module in MODULES} | {f"{PACKAGE}.{room.replace('/', '.')}" for room in ROOMS}


# --- reading imports -------------------------------------------------------------------------------------------------


def imports(source: Source) -> Iterator[Import]:
    yield from _imports(source.tree, is_module_level=True)


def _imports(node: ast.AST, *, is_module_level: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, is_module_level) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: imports are absolute"
            yield from (
                Import(_target(child.module or "", alias.name), child.lineno, is_module_level) for alias in child.names
            )
        elif isinstance(child, ast.Call) and _called(child) in ("import_module", "__import__"):
            named = child.args[0] if child.args else None
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                yield Import(named.value, child.lineno, is_module_level)
            yield from _imports(child, is_module_level=is_module_level)
        else:
            deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_for_types(child)
            yield from _imports(child, is_module_level=is_module_level and not deferred)


def _target(module: str, name: str) -> str:
    return f"{module}.{name}" if f"{module}.{name}" in NAMES or not module.startswith(PACKAGE) else module


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def _is_of(target: str, package_name: str) -> bool:
    return target == package_name or target.startswith(f"{package_name}.")


# --- the rules: each gives what is wrong with one module --------------------------------------------------------------


def wrong_room(source: Source) -> Iterator[str]:
    if not source.room:
        return
    if source.room not in ROOMS:
        yield f"room {source.room!r} is not known: say in tests/support/rooms.py what it holds and may import"
        return
    for found in imports(source):
        if not _is_of(found.target, PACKAGE) or found.target == PACKAGE:
            continue
        if not may_import(source.room, room_of(found.target)):
            yield f"line {found.line}: {source.room} imports {found.target}"


def operator_imports_operator(source: Source) -> Iterator[str]:
    if source.layer == "operators":
        for found in imports(source):
            if _is_of(found.target, f"{PACKAGE}.operators") and found.target not in SHARED_BY_OPERATORS:
                yield f"line {found.line}: an operator imports {found.target}"


def airflow_where_it_may_be_missing(source: Source) -> Iterator[str]:
    if source.layer in WITHOUT_AIRFLOW:
        for found in imports(source):
            if _is_of(found.target, "airflow"):
                yield f"line {found.line}: {source.layer} imports {found.target}"


def heavy_at_module_level(source: Source) -> Iterator[str]:
    if source.layer == "work":
        return
    of_others = tuple(leaf for leaf in HEAVY_LEAVES if leaf.split(".")[1] != source.layer)
    heavy = of_others if source.name in HEAVY_LEAVES else (*HEAVY, *HEAVY_LEAVES)
    for found in imports(source):
        if found.is_module_level and any(_is_of(found.target, name) for name in heavy):
            yield f"line {found.line}: {found.target} is imported with the module"


def work_plane_at_module_level(source: Source) -> Iterator[str]:
    if source.layer == "cli":
        for found in imports(source):
            if found.is_module_level and _is_of(found.target, f"{PACKAGE}.work"):
                yield f"line {found.line}: a command imports {found.target} before it is called"


def too_long(source: Source) -> Iterator[str]:
    lines = len(source.text.splitlines())
    if lines > MAX_MODULE_LINES:
        yield f"the module has {lines} lines"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _length(node) > MAX_FUNCTION_LINES:
            yield f"line {node.lineno}: {node.name} has {_length(node)} lines"


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    docstring = 0 if ast.get_docstring(function) is None else (first.end_lineno or 0) - first.lineno + 1
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def forbidden_errors(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = raised.attr if isinstance(raised, ast.Attribute) else getattr(raised, "id", "")
            if name in ("AirflowException", "NotImplementedError"):
                yield f"line {node.lineno}: raises {name}"


def module_without_a_subject(source: Source) -> Iterator[str]:
    for part in source.name.split(".")[1:]:
        if part in SINKS:
            yield f"{part} names no subject"


RULES: list[Callable[[Source], Iterator[str]]] = [
    wrong_room,
    operator_imports_operator,
    airflow_where_it_may_be_missing,
    heavy_at_module_level,
    work_plane_at_module_level,
    too_long,
    forbidden_errors,
    module_without_a_subject,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_every_rule(rule: Callable[[Source], Iterator[str]]) -> None:
    assert len(MODULES) > 30
    assert [f"{module.name}: {problem}" for module in MODULES for problem in rule(module)] == []


LONG_BODY = "\n".join("    x = 1" for _ in range(MAX_FUNCTION_LINES))


@pytest.mark.parametrize(
    ("rule", "name", "text", "problem"),
    [
        (wrong_room, "core.x", "from airflow_mcp.hooks.mlflow import MlflowHook", "core imports airflow_mcp.hooks"),
        (
            wrong_room,
            "core.x",
            "def f():\n    import airflow_mcp.settings",
            "line 2: core imports airflow_mcp.settings",
        ),
        (wrong_room, "core.x", "from airflow_mcp import hooks", "core imports airflow_mcp.hooks"),
        (
            wrong_room,
            "exceptions",
            "from airflow_mcp.core import contract",
            "exceptions imports airflow_mcp.core.contract",
        ),
        (
            wrong_room,
            "hooks.x",
            "from airflow_mcp.operators.base import now",
            "hooks imports airflow_mcp.operators.base",
        ),
        (wrong_room, "hooks.x", "from airflow_mcp.links.mlflow import A", "hooks imports airflow_mcp.links.mlflow"),
        (wrong_room, "workloads.x", "import airflow_mcp.hooks.mlflow", "workloads imports airflow_mcp.hooks.mlflow"),
        (wrong_room, "work.steps.x", "from airflow_mcp import settings", "work/steps imports airflow_mcp.settings"),
        (
            wrong_room,
            "operators.x",
            "import airflow_mcp.work.steps.train",
            "operators imports airflow_mcp.work.steps.train",
        ),
        (wrong_room, "newcomer.x", "", "room 'newcomer' is not known"),
        (wrong_room, "work.steps.x", "import_module('airflow_mcp.hooks')", "work/steps imports airflow_mcp.hooks"),
        (
            operator_imports_operator,
            "operators.x",
            "from airflow_mcp.operators.gate import EvaluationGateOperator",
            "an operator imports airflow_mcp.operators.gate",
        ),
        (airflow_where_it_may_be_missing, "work.steps.x", "import airflow", "work imports airflow"),
        (
            airflow_where_it_may_be_missing,
            "core.x",
            "def f():\n    from airflow.sdk import conf",
            "line 2: core imports airflow.sdk.conf",
        ),
        (
            airflow_where_it_may_be_missing,
            "core.x",
            "if TYPE_CHECKING:\n    from airflow.sdk import Context",
            "core imports airflow.sdk.Context",
        ),
        (airflow_where_it_may_be_missing, "work.steps.x", "f(importlib.import_module('airflow.sdk'))", "airflow.sdk"),
        (heavy_at_module_level, "operators.x", "import pandas as pd", "pandas is imported with the module"),
        (
            heavy_at_module_level,
            "hooks.x",
            "try:\n    from mlflow import client\nexcept ImportError: ...",
            "mlflow.client",
        ),
        (heavy_at_module_level, "core.x", "class A:\n    import numpy.random", "numpy.random"),
        (heavy_at_module_level, "workloads.x", "from airflow_mcp.triggers.pod import Trigger", "triggers.pod"),
        (heavy_at_module_level, "triggers.pod", "import airflow_mcp.workloads.kubernetes_pod", "kubernetes_pod is"),
        (heavy_at_module_level, "cluster.x", "from kubernetes import client", "kubernetes.client"),
        (airflow_where_it_may_be_missing, "cluster.x", "from airflow.sdk import conf", "cluster imports airflow"),
        (heavy_at_module_level, "workloads.x", "from airflow.providers.cncf.kubernetes import x", "cncf.kubernetes.x"),
        (
            work_plane_at_module_level,
            "cli.x",
            "from airflow_mcp.work import profiling",
            "a command imports airflow_mcp.work",
        ),
        (too_long, "core.x", "\n" * (MAX_MODULE_LINES + 1), f"the module has {MAX_MODULE_LINES + 1} lines"),
        (too_long, "core.x", f"def f():\n{LONG_BODY}", f"f has {MAX_FUNCTION_LINES + 1} lines"),
        (too_long, "core.x", f"class A:\n  async def g(self):\n{LONG_BODY}", "g has"),
        (forbidden_errors, "hooks.x", "raise AirflowException('x')", "raises AirflowException"),
        (forbidden_errors, "hooks.x", "raise airflow.exceptions.AirflowException", "raises AirflowException"),
        (forbidden_errors, "hooks.x", "def f():\n    raise NotImplementedError", "raises NotImplementedError"),
        (module_without_a_subject, "core.utils", "", "utils names no subject"),
        (module_without_a_subject, "helpers.x", "", "helpers names no subject"),
    ],
)
def test_every_rule_can_fail(rule: Callable[[Source], Iterator[str]], name: str, text: str, problem: str) -> None:
    assert problem in "\n".join(rule(Source(f"{PACKAGE}.{name}", text)))


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (
            wrong_room,
            "operators.x",
            "from airflow_mcp.hooks.mlflow import MlflowHook\nfrom airflow_mcp import __version__",
        ),
        (operator_imports_operator, "operators.x", "from airflow_mcp.operators.base import now"),
        (airflow_where_it_may_be_missing, "work.steps.x", "import airflow_mcp.core.contract"),
        (heavy_at_module_level, "operators.x", "def f():\n    import pandas"),
        (heavy_at_module_level, "operators.x", "if TYPE_CHECKING:\n    import pandas"),
        (heavy_at_module_level, "work.steps.x", "import pandas"),
        (heavy_at_module_level, "triggers.pod", "from kubernetes import client"),
        (heavy_at_module_level, "triggers.replicas", "import airflow_mcp.triggers.pod"),
        (heavy_at_module_level, "workloads.x", "def f():\n    import airflow_mcp.workloads.kubernetes_pod"),
        (work_plane_at_module_level, "cli.x", "def f():\n    from airflow_mcp.work import profiling"),
        (too_long, "core.x", f'def f():\n    """One\n\n    Two.\n    """\n{LONG_BODY[:-10]}'),
        (forbidden_errors, "operators.x", "raise AirflowFailException('x')"),
        (module_without_a_subject, "core.common_metrics", ""),
    ],
)
def test_no_rule_refuses_what_is_allowed(rule: Callable[[Source], Iterator[str]], name: str, text: str) -> None:
    assert list(rule(Source(f"{PACKAGE}.{name}", text))) == []


# --- cycles ----------------------------------------------------------------------------------------------------


def cycle(modules: list[Source]) -> list[str]:
    """Find modules that import each other when they are imported; empty when there are none."""
    names = {module.name for module in modules}
    graph = {
        module.name: {
            found.target
            for found in imports(module)
            if found.is_module_level and found.target in names and found.target != module.name
        }
        for module in modules
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def cycle_of_rooms(modules: list[Source], *, depth: int | None = None) -> list[str]:
    """Find folders that import each other, wherever in a module the import is; empty when there are none.

    :param modules: the modules.
    :param depth: how many folders of a path count: 1 looks at top rooms with everything below them; None at each
        folder alone.
    """
    graph: dict[str, set[str]] = {}
    for module in modules:
        room = "/".join(module.room.split("/")[:depth])
        targets = (room_of(found.target) for found in imports(module) if _is_of(found.target, PACKAGE))
        graph.setdefault(room, set()).update("/".join(target.split("/")[:depth]) for target in targets if target)
        graph[room].discard(room)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("depth", [1, 2, None])
def test_no_rooms_import_each_other(depth: int | None) -> None:
    assert cycle_of_rooms(MODULES, depth=depth) == []


def test_a_cycle_of_rooms_would_be_found() -> None:
    bad = [
        Source("airflow_mcp.core.gate.judgement", "import airflow_mcp.core.drift.result"),
        Source("airflow_mcp.core.drift.summary", "def f():\n    from airflow_mcp.core.gate.policy import GatePolicy"),
    ]
    assert set(cycle_of_rooms(bad)) == {"core/gate", "core/drift"}
    assert cycle_of_rooms(bad, depth=1) == []
    assert cycle_of_rooms(bad[:1]) == []


def test_every_room_of_the_list_has_modules() -> None:
    assert set(ROOMS) == {module.room for module in MODULES if module.room}


def test_the_docs_have_the_table_of_the_rooms() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "write it with: python -m tests.support.rooms"
    assert "`core/gate/rules/`" in page


def test_no_modules_import_each_other() -> None:
    assert cycle(MODULES) == []


def test_a_cycle_would_be_found() -> None:
    bad = [
        Source("airflow_mcp.core.gate.judgement", "import airflow_mcp.core.gate.rules.verdicts"),
        Source("airflow_mcp.core.gate.rules.verdicts", "from airflow_mcp.core.drift import summary"),
        Source("airflow_mcp.core.drift.summary", "from airflow_mcp.core.gate.judgement import GatePolicy"),
    ]
    assert len(cycle(bad)) == 4
    bad[2] = Source(
        "airflow_mcp.core.drift.summary", "def f():\n    from airflow_mcp.core.gate.judgement import GatePolicy"
    )
    assert cycle(bad) == []


# --- what is really loaded -------------------------------------------------------------------------------------


def loaded_after(statements: str) -> set[str]:
    """Run statements in a fresh interpreter and give the names of all modules loaded at the end."""
    code = f"import sys\n{statements}\nimport json; print('loaded:' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return set(json.loads(done.stdout.rsplit("loaded:", 1)[1]))


def of_layers(*layers: str) -> str:
    """Write the imports of every module of some layers that the control plane imports."""
    names = (module.name for module in MODULES if module.layer in layers)
    return "\n".join(f"import {name}" for name in names if name not in HEAVY_LEAVES)


def test_the_work_plane_can_be_imported_without_airflow() -> None:
    blocked = "sys.modules['airflow'] = None\n"
    loaded = loaded_after(blocked + of_layers("exceptions", "core", "work"))
    assert "airflow_mcp.work.__main__" in loaded
    assert not [name for name in loaded if name.startswith("airflow.")]


def test_the_front_of_the_model_server_can_be_imported_without_airflow_and_without_libraries_of_models() -> None:
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in ("airflow", "fastapi", *HEAVY))
    loaded = loaded_after(blocked + of_layers("serving"))
    assert "airflow_mcp.serving.__main__" in loaded
    assert not {name for name in loaded for heavy in HEAVY if name.startswith(f"{heavy}.")}


def test_a_blocked_airflow_is_noticed() -> None:
    with pytest.raises(AssertionError, match="airflow"):
        loaded_after("sys.modules['airflow'] = None\nimport airflow_mcp.operators.gate")


def test_importing_the_control_plane_loads_nothing_heavy() -> None:
    before = loaded_after("import airflow.sdk")
    after = loaded_after(
        "import airflow.sdk\n" + of_layers(*(layer for layer in {room.split("/")[0] for room in ROOMS} - {"work"}))
    )
    heavy = {name for name in after - before for package_name in HEAVY if _is_of(name, package_name)}
    assert heavy == set()
    assert {"airflow_mcp.operators.gate", "airflow_mcp.workloads.kubernetes", "airflow_mcp.cli"} <= after


def test_a_heavy_leaf_would_be_noticed() -> None:
    assert "kubernetes" in loaded_after("import airflow_mcp.triggers.pod")
