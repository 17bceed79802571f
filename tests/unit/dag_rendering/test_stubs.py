"""Stubs: one Python file per pipeline or per group of pipelines, kept up to date."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.exceptions import SerializationError

from airflow_mcp.dag_rendering.loader import load_pipeline_folder
from airflow_mcp.dag_rendering.stubs import MARK, StubChanges, compare_stubs, write_stubs
from airflow_mcp.exceptions import InvalidArgumentError, PipelineSpecError
from tests.support.paths import PIPELINES

SPEC = (PIPELINES / "fraud_detection.yaml").read_text()


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    """A folder of Dags with a folder of pipelines in it."""
    (tmp_path / "dags/pipelines").mkdir(parents=True)
    return tmp_path / "dags"


def pipeline(folder: Path, file: str, name: str = "", text: str = SPEC) -> Path:
    path = folder / "pipelines" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("fraud-detection-pipeline", name or path.stem))
    return path


def write(dags: Path, pipelines: Path | None = None, groups: int = 0) -> StubChanges:
    root = pipelines or dags / "pipelines"
    return write_stubs(load_pipeline_folder(root), root, dags, groups)


def stubs(dags: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(dags.glob("*.py"))}


def test_each_pipeline_gets_a_stub_that_names_its_file_relative_to_itself(dags: Path) -> None:
    pipeline(dags, "fraud.yaml")
    pipeline(dags, "team/churn.yaml")
    changes = write(dags)
    assert [stub.path.name for stub in changes.written] == ["mcp_fraud.py", "mcp_churn.py"]
    text = stubs(dags)["mcp_fraud.py"]
    assert text.startswith(MARK)
    assert "dag = load_model_pipeline('pipelines/fraud.yaml', root='pipelines', name='fraud')" in text
    assert str(dags) not in "".join(stubs(dags).values())
    ast.parse(text)


def test_a_pipeline_outside_the_folder_of_dags_is_named_by_its_absolute_path(tmp_path: Path, dags: Path) -> None:
    path = pipeline(tmp_path, "fraud.yaml")
    write(dags, tmp_path / "pipelines")
    assert f"load_model_pipeline({str(path)!r}, root={str(path.parent)!r}, name='fraud')" in stubs(dags)["mcp_fraud.py"]


def test_a_second_time_touches_nothing(dags: Path) -> None:
    path = pipeline(dags, "fraud.yaml")
    write(dags)
    before = (dags / "mcp_fraud.py").stat()
    path.write_text(path.read_text() + "  env: {A: b}\n")  # of the content only the name is in the stub
    changes = write(dags)
    assert changes.is_up_to_date
    assert changes.kept == 1
    assert (dags / "mcp_fraud.py").stat().st_mtime_ns == before.st_mtime_ns


def test_stubs_of_pipelines_that_are_gone_are_removed_and_other_files_are_not(dags: Path) -> None:
    path = pipeline(dags, "fraud.yaml")
    (dags / "mcp_mine.py").write_text("print('mine')\n")
    (dags / "other.py").write_text("print('other')\n")
    write(dags)
    path.unlink()
    changes = write(dags)
    assert [gone.name for gone in changes.removed] == ["mcp_fraud.py"]
    assert list(stubs(dags)) == ["mcp_mine.py", "other.py"]


def test_comparing_says_what_would_change_and_changes_nothing(dags: Path) -> None:
    pipeline(dags, "fraud.yaml")
    found = load_pipeline_folder(dags / "pipelines")
    assert not compare_stubs(found, dags / "pipelines", dags).is_up_to_date
    assert stubs(dags) == {}
    write(dags)
    assert compare_stubs(found, dags / "pipelines", dags).is_up_to_date
    (dags / "mcp_fraud.py").write_text(f"{MARK}\nprint('edited')\n")
    assert [stub.path.name for stub in compare_stubs(found, dags / "pipelines", dags).written] == ["mcp_fraud.py"]


@pytest.mark.parametrize("broken", ["kind: ModelPipeline\nspec: [", ""])
def test_a_broken_file_keeps_its_stub_and_gets_no_new_one(dags: Path, broken: str) -> None:
    path = pipeline(dags, "fraud.yaml")
    write(dags)
    path.write_text(broken)
    pipeline(dags, "new.yaml", text="kind: ModelPipeline\nspec: [")
    assert write(dags).is_up_to_date
    assert list(stubs(dags)) == ["mcp_fraud.py"]


def test_a_file_that_was_not_generated_is_never_overwritten(dags: Path) -> None:
    pipeline(dags, "aaa.yaml")
    pipeline(dags, "fraud.yaml")
    (dags / "mcp_fraud.py").write_text("print('mine')\n")
    with pytest.raises(InvalidArgumentError, match=r"mcp_fraud\.py exists and was not generated"):
        write(dags)
    assert stubs(dags) == {"mcp_fraud.py": "print('mine')\n"}


def test_names_that_look_alike_get_stubs_of_their_own(dags: Path) -> None:
    names = ["a-b", "a_b", "a.b", "ab", "x" * 199, "x" * 200]
    for number, name in enumerate(names):
        pipeline(dags, f"p{number}.yaml", name)
    write(dags)
    assert sorted(stubs(dags)) == sorted(f"mcp_{name}.py" for name in names)


class TestTwoFolders:
    """Stubs of two folders of pipelines in one Dags folder."""

    @pytest.fixture
    def roots(self, tmp_path: Path) -> list[Path]:
        return [tmp_path / team / "pipelines" for team in ("red", "blue")]

    def test_neither_touches_the_stubs_of_the_other(self, dags: Path, roots: list[Path]) -> None:
        red, blue = roots
        for root, name in ((red, "churn"), (red, "fraud"), (blue, "wine")):
            pipeline(root.parent, f"{name}.yaml", name)
        write(dags, red)
        write(dags, blue)
        (red / "churn.yaml").unlink()
        assert [path.name for path in write(dags, red).removed] == ["mcp_churn.py"]
        assert write(dags, blue).is_up_to_date
        assert list(stubs(dags)) == ["mcp_fraud.py", "mcp_wine.py"]

    def test_files_of_one_name_get_a_stub_each(self, dags: Path, roots: list[Path]) -> None:
        for root in roots:
            pipeline(root.parent, "pipeline.yaml", root.parent.name)
            write(dags, root)
        assert list(stubs(dags)) == ["mcp_blue.py", "mcp_red.py"]

    def test_pipelines_of_one_name_are_refused_with_both_folders(self, dags: Path, roots: list[Path]) -> None:
        red, blue = roots
        for root in roots:
            pipeline(root.parent, "pipeline.yaml", "wine")
        pipeline(blue.parent, "other.yaml", "other")
        write(dags, red)
        before = stubs(dags)
        with pytest.raises(InvalidArgumentError) as caught:
            write(dags, blue)
        assert all(str(root) in str(caught.value) for root in roots)
        assert "Nothing was written" in str(caught.value)
        assert stubs(dags) == before

    def test_a_link_to_the_folder_is_the_same_folder(self, dags: Path, roots: list[Path], tmp_path: Path) -> None:
        pipeline(roots[0].parent, "wine.yaml")
        write(dags, roots[0])
        (tmp_path / "link").symlink_to(roots[0])
        assert [stub.path.name for stub in write(dags, tmp_path / "link").written] == ["mcp_wine.py"]


class TestGroups:
    """Many pipelines in few stubs."""

    @pytest.fixture
    def names(self, dags: Path) -> list[str]:
        names = [f"p-{number}" for number in range(12)]
        for name in names:
            pipeline(dags, f"{name}.yaml")
        write(dags, groups=3)
        return names

    def grouped(self, dags: Path) -> dict[str, list[str]]:
        """Return the pipelines that each stub names."""
        found = {}
        for name, text in stubs(dags).items():
            call = ast.parse(text).body[-1]
            assert isinstance(call, ast.Expr)
            assert isinstance(call.value, ast.Call)
            found[name] = list(ast.literal_eval(call.value.args[0]))
        return found

    def test_every_pipeline_is_in_one_stub(self, dags: Path, names: list[str]) -> None:
        found = self.grouped(dags)
        assert len(found) == 3
        assert sorted(name for inside in found.values() for name in inside) == sorted(names)
        assert str(dags) not in "".join(stubs(dags).values())
        assert write(dags, groups=3).is_up_to_date

    def test_a_new_pipeline_and_one_that_goes_change_one_stub_each(self, dags: Path, names: list[str]) -> None:
        pipeline(dags, "new.yaml")
        changes = write(dags, groups=3)
        assert (len(changes.written), changes.removed, changes.kept) == (1, (), 2)
        (dags / "pipelines/new.yaml").unlink()
        assert len(write(dags, groups=3).written) == 1
        assert sorted(name for inside in self.grouped(dags).values() for name in inside) == sorted(names)

    def test_the_last_pipeline_of_a_group_takes_its_stub_along(self, dags: Path, names: list[str]) -> None:
        (stub, inside) = next(iter(self.grouped(dags).items()))
        for name in inside:
            (dags / f"pipelines/{name}.yaml").unlink()
        assert [path.name for path in write(dags, groups=3).removed] == [stub]

    @pytest.mark.parametrize("text", ["kind: ModelPipeline\nspec: [", "", "a: b"])
    def test_a_file_that_breaks_stays_in_its_group(self, dags: Path, names: list[str], text: str) -> None:
        (dags / "pipelines/p-5.yaml").write_text(text)
        changes = write(dags, groups=3)
        assert changes.is_up_to_date
        assert [path.name for path in changes.no_pipelines] == (["p-5.yaml"] if text == "a: b" else [])

    def test_groups_of_another_number_and_single_stubs_replace_each_other(self, dags: Path, names: list[str]) -> None:
        (dags / "pipelines/p-5.yaml").write_text("kind: ModelPipeline\nspec: [")
        write(dags, groups=2)
        assert sum(map(len, self.grouped(dags).values())) == len(names)
        write(dags)
        assert sorted(stubs(dags)) == sorted(f"mcp_{name}.py" for name in names)
        write(dags, groups=1)
        assert [sorted(inside) for inside in self.grouped(dags).values()] == [sorted(names)]

    def test_another_folder_has_groups_of_its_own_and_no_pipeline_of_the_same_name(
        self, dags: Path, names: list[str], tmp_path: Path
    ) -> None:
        other = pipeline(tmp_path / "other", "wine.yaml").parent
        write(dags, other, groups=3)
        assert len(stubs(dags)) == 4
        assert write(dags, groups=3).is_up_to_date
        pipeline(tmp_path / "other", "again.yaml", "p-5")
        with pytest.raises(InvalidArgumentError, match=r"belongs to pipeline 'p-5' of .*Nothing was written"):
            write(dags, other, groups=3)

    def test_a_broken_file_and_a_renamed_pipeline_do_not_affect_the_others(self, dags: Path, names: list[str]) -> None:
        (dags / "pipelines/p-5.yaml").write_text("kind: ModelPipeline\nspec: [")
        pipeline(dags, "p-7.yaml", "churn")
        bag = BundleDagBag(dag_folder=dags, bundle_path=dags, bundle_name="test", safe_mode=False)
        assert {name for name in bag.dags if not name.startswith("broken-")} == set(names) - {"p-5", "p-7"}
        for dag in (dag for name, dag in bag.dags.items() if name.startswith("broken-")):
            with pytest.raises(SerializationError, match=r"p-5\.yaml:|'p-7'; got 'churn'"):
                dag.get_serialized_fields()

    def test_a_worker_reads_only_the_file_of_its_dag(
        self, dags: Path, names: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (stub,) = (dags / name for name, inside in self.grouped(dags).items() if "p-3" in inside)
        for name in set(names) - {"p-3"}:
            (dags / f"pipelines/{name}.yaml").write_text("kind: ModelPipeline\nspec: [")
        for wanted in ("p-3", "p-3__release", "p-99"):
            context = type("Context", (), {"dag_id": wanted})()
            monkeypatch.setattr("airflow_mcp.dag_rendering.dags.get_parsing_context", lambda found=context: found)
            if wanted == "p-99":
                with pytest.raises(InvalidArgumentError, match=r"must have pipeline 'p-99'.*Run airflow-mcp render"):
                    runpy.run_path(str(stub))
            else:
                assert [dag.dag_id for dag in collected(stub)] == ["p-3"]

    def test_a_negative_number_is_refused(self, dags: Path) -> None:
        with pytest.raises(InvalidArgumentError, match=r"groups must be 1 or more; got -1\. Nothing was written"):
            write(dags, groups=-1)


def collected(stub: Path) -> list[Any]:
    """Return the Dags that Airflow finds in a file."""
    bag = BundleDagBag(dag_folder=stub, bundle_path=stub.parent, bundle_name="test")
    assert bag.import_errors == {}
    return list(bag.dags.values())


def test_a_renamed_pipeline_moves_to_a_stub_of_its_new_name(dags: Path) -> None:
    path = pipeline(dags, "fraud.yaml")
    write(dags)
    pipeline(dags, "fraud.yaml", "fraud-2")
    assert path.exists()
    assert [gone.name for gone in write(dags).removed] == ["mcp_fraud.py"]
    assert list(stubs(dags)) == ["mcp_fraud-2.py"]


@pytest.mark.parametrize("text", ["hello", "- a", "a: b"])
def test_a_file_that_is_no_pipeline_any_more_keeps_its_stub_and_is_named(dags: Path, text: str) -> None:
    path = pipeline(dags, "fraud.yaml")
    write(dags)
    path.write_text(text)
    changes = write(dags)
    assert changes.is_up_to_date
    assert changes.no_pipelines == (path,)
    assert list(stubs(dags)) == ["mcp_fraud.py"]


def test_a_stub_refuses_a_pipeline_of_another_name(dags: Path) -> None:
    path = pipeline(dags, "fraud.yaml")
    write(dags)
    stub = dags / "mcp_fraud.py"
    assert runpy.run_path(str(stub))["dag"].dag_id == "fraud"
    path.write_text(path.read_text().replace("name: fraud", "name: churn"))
    with pytest.raises(PipelineSpecError, match=r"fraud\.yaml:\d+:\d+: metadata\.name: .*'fraud'; got 'churn'"):
        runpy.run_path(str(stub))


def test_quotes_in_a_path_stay_inside_the_text(dags: Path) -> None:
    pipeline(dags, 'it\'s "x".yaml', "quoted")
    write(dags)
    (text,) = stubs(dags).values()
    call = ast.parse(text).body[-1]
    assert isinstance(call, ast.Assign)
    assert isinstance(call.value, ast.Call)
    assert ast.literal_eval(call.value.args[0]) == 'pipelines/it\'s "x".yaml'


def test_no_temporary_file_is_left(dags: Path) -> None:
    pipeline(dags, "fraud.yaml")
    write(dags)
    assert {path.name for path in dags.iterdir()} == {"mcp_fraud.py", "pipelines"}
