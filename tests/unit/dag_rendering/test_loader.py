"""Pipeline files of a folder: which are read, with which other files, and when they are read again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from airflow_mcp.dag_rendering.loader import BrokenPipeline, LoadedPipeline, load_pipeline_file, load_pipeline_folder
from airflow_mcp.exceptions import InvalidArgumentError
from tests.support.paths import PIPELINES as FILES
from tests.support.pipeline_files import CHURN, FRAUD, Write, changed, problems


class TestTheFileOfTheIssue:
    def test_is_read_as_it_stands(self) -> None:
        loaded = load_pipeline_file(FILES / "fraud_detection.yaml", variables={})
        spec = loaded.pipeline.spec
        assert (loaded.file, loaded.environment, loaded.text) == ("fraud_detection.yaml", "dev", FRAUD)
        assert spec.source_code.repo_url == "https://github.com/team/ml-fraud-v3"
        assert [stage.name for stage in spec.stages] == ["build", "evaluate"]
        assert loaded.origin("spec", "stages", 1) == "fraud_detection.yaml:14"
        image, command = (loaded.place("spec", "stages", 0, name) for name in ("image", "command"))
        assert (image.line, command.line) == (13, 12), "a field that is missing has the place of its stage"

    def test_takes_release_tags_in_prod_and_says_why(self) -> None:
        loaded = load_pipeline_file(FILES / "fraud_detection.yaml", "prod", variables={})
        assert loaded.pipeline.spec.source_code.tags == "v*"
        assert loaded.origin("spec", "sourceCode", "tags").startswith("filled in: in prod the code is the newest")


@pytest.mark.parametrize("environment", ["dev", "test", "prod"])
def test_a_file_that_says_everything_is_valid_in_every_environment(environment: str) -> None:
    assert load_pipeline_file(FILES / "churn.yaml", environment, variables={}).pipeline.metadata.name == "churn"


class TestConfigFiles:
    TEXT = changed(FRAUD, "  trainingScript", "  config: conf/a.yaml\n  trainingScript")

    def test_are_read_beside_the_file_and_values_go_over_them(self, write: Write) -> None:
        write("conf/a.yaml", "lr: 1e-3\ndepth: {max: 6}\n")
        text = self.TEXT + "  environments: {test: {config: {depth: {max: 9}}}}\n"
        path = write("f.yaml", text)
        assert load_pipeline_file(path, "dev", variables={}).config == {"lr": 0.001, "depth": {"max": 6}}
        assert load_pipeline_file(path, "test", variables={}).config == {"lr": 0.001, "depth": {"max": 9}}

    @pytest.mark.parametrize(
        ("name", "text", "problem"),
        [
            ("conf/a.yaml", "a: 1\na: 2\n", "conf/a.yaml:2:1: a: the key is here twice"),
            (
                "conf/a.yaml",
                "- a\n",
                "f.yaml:7:11: spec.config: conf/a.yaml must contain a mapping of names to values; got a list",
            ),
            ("conf/b.yaml", "a: 1\n", "f.yaml:7:11: spec.config: a.yaml cannot be read: No such file or directory"),
        ],
    )
    def test_trouble_with_them_is_named(self, write: Write, name: str, text: str, problem: str) -> None:
        write(name, text)
        assert problems(write("f.yaml", self.TEXT))[0].startswith(problem)

    def test_a_file_named_inside_a_mapping_is_refused_with_what_to_write(self, write: Write) -> None:
        path = write("f.yaml", changed(FRAUD, "  trainingScript", "  config: {file: conf/a.yaml}\n  trainingScript"))
        assert (
            "spec.config: must be the values themselves, or the path of a file alone: write config: conf/a.yaml"
            in (problems(path)[0])
        )
        own = changed(FRAUD, "  trainingScript", "  config: {file: x, depth: 3}\n  trainingScript")
        assert load_pipeline_file(write("f.yaml", own)).config == {"file": "x", "depth": 3}

    def test_json_is_read_as_json(self, write: Write) -> None:
        write("conf/a.json", '{\n\t"lr": 0.1}')
        assert load_pipeline_file(write("f.yaml", self.TEXT.replace("a.yaml", "a.json"))).config == {"lr": 0.1}
        write("conf/a.json", "[" * 100_000)
        assert "a.json cannot be read" in problems(write("f.yaml", self.TEXT.replace("a.yaml", "a.json")))[0]


class TestScripts:
    TEXT = changed(changed(FRAUD, "https://github.com/team/ml-fraud-v3", "src"), "    - onCommit: true\n", "")

    def test_a_misspelled_one_is_told_with_the_file_that_is_there(self, write: Write) -> None:
        write("pipelines/src/trian.py", "")
        (found,) = problems(write("pipelines/f.yaml", self.TEXT))
        assert found.endswith("train.py is not in src. Did you mean 'trian.py'?")

    def test_of_a_folder_must_exist(self, write: Write) -> None:
        path = write("pipelines/f.yaml", self.TEXT)
        assert problems(path) == [
            "f.yaml:6:15: spec.sourceCode.repoUrl: there is no folder src next to f.yaml. Name a folder or a Git URL"
        ]
        write("pipelines/src/other.py", "")
        assert problems(path) == [
            "f.yaml:7:19: spec.trainingScript: train.py is not in src. Name a script in the source"
        ]
        write("pipelines/src/train.py", "")
        assert not load_pipeline_file(path).pipeline.spec.source_code.is_remote

    @pytest.mark.parametrize("url", ["x" * 5000, "src/train.py", "'  '"])
    def test_of_a_folder_that_none_can_be(self, write: Write, url: str) -> None:
        write("src/train.py", "")
        found = problems(write("f.yaml", self.TEXT.replace("sourceCode: src", f"sourceCode: {url}")))
        assert found[0].startswith("f.yaml:6:15: spec.sourceCode")

    def test_outside_the_folder_are_refused_also_behind_a_link(self, write: Write, tmp_path: Path) -> None:
        outside = write("secret/train.py", "")
        (tmp_path / "p" / "src").mkdir(parents=True)
        (tmp_path / "p" / "src" / "train.py").symlink_to(outside)
        found = problems(write("p/f.yaml", self.TEXT))
        assert found == ["f.yaml:7:19: spec.trainingScript: train.py leads out of src. Name a script in the source"]


class TestFolders:
    def test_one_broken_file_changes_nothing_about_the_others(self, write: Write, tmp_path: Path) -> None:
        write("a/good.yaml", FRAUD)
        write("b/broken.yml", CHURN.replace("metadata:", "metadata: ["))
        write("b/conf.yaml", "lr: 1\n")
        write("b/service.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {}\n")
        write(".hidden/x.yaml", FRAUD)
        good, broken = load_pipeline_folder(tmp_path, variables={})
        assert isinstance(good, LoadedPipeline)
        assert isinstance(broken, BrokenPipeline)
        assert good.file == "a/good.yaml"
        assert str(broken.error).startswith("b/broken.yml:6:14: metadata[1]: this is not YAML")

    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            (
                "kind: ModelPipeline",
                "kind: ModelPipline",
                "a.yaml:2:7: kind: must be ModelPipeline; got 'ModelPipline'. Did you mean",
            ),
            ("kind: ModelPipeline\n", "", "a.yaml:1:1: kind: is missing: ModelPipeline"),
            (
                "apiVersion: mcp.example.com/v1\nkind",
                "Kind",
                "a.yaml:1:1: Kind: is not a known name. Did you mean 'kind'?",
            ),
        ],
    )
    def test_a_misspelt_kind_is_a_mistake_and_not_another_kind_of_file(
        self, write: Write, tmp_path: Path, old: str, new: str, problem: str
    ) -> None:
        write("a.yaml", changed(FRAUD, old, new))
        (broken,) = load_pipeline_folder(tmp_path)
        assert isinstance(broken, BrokenPipeline)
        assert problem in str(broken.error)

    @pytest.mark.parametrize("text", ["", "# retired\n", "---\n", "null\n"])
    def test_an_emptied_file_is_a_mistake_because_it_may_have_been_a_pipeline(
        self, write: Write, tmp_path: Path, text: str
    ) -> None:
        write("defaults.yaml", "spec: {}\n")
        write("a.yaml", FRAUD)
        write("b.yaml", text)
        good, broken = load_pipeline_folder(tmp_path)
        assert isinstance(good, LoadedPipeline)
        assert isinstance(broken, BrokenPipeline)
        assert str(broken.error) == "b.yaml:1:1: the file is empty"

    def test_two_pipelines_of_one_name_are_both_refused(self, write: Write, tmp_path: Path) -> None:
        write("a.yaml", FRAUD)
        write("b/c.yaml", FRAUD)
        write("d.yaml", changed(FRAUD, "name: fraud-detection-pipeline", "name: d"))
        found = load_pipeline_folder(tmp_path)
        assert [str(each.error) if isinstance(each, BrokenPipeline) else each.file for each in found] == [
            "a.yaml:4:9: metadata.name: 'fraud-detection-pipeline' is also the name of b/c.yaml. Give each "
            "pipeline its own name",
            "d.yaml",
            "b/c.yaml:4:9: metadata.name: 'fraud-detection-pipeline' is also the name of a.yaml. Give each "
            "pipeline its own name",
        ]

    def test_links_out_of_the_folder_are_refused_and_links_inside_are_followed(
        self, write: Write, tmp_path: Path
    ) -> None:
        outside = write("outside/a.yaml", FRAUD)
        inside = write("in/..data/b.yaml", changed(FRAUD, "name: fraud-detection-pipeline", "name: b"))
        (tmp_path / "in" / "a.yaml").symlink_to(outside)
        (tmp_path / "in" / "b.yaml").symlink_to(inside)
        (tmp_path / "in" / "more").symlink_to(outside.parent)
        (tmp_path / "in" / "loop.yaml").symlink_to("loop.yaml")
        found = load_pipeline_folder(tmp_path / "in")
        told = [str(each.error) if isinstance(each, BrokenPipeline) else each.file for each in found]
        assert told[0] == "a.yaml:1:1: a.yaml leads out of in/. It was not read"
        assert told[1] == "b.yaml"
        assert told[2].startswith("loop.yaml:1:1: loop.yaml cannot be read")
        assert told[3] == "more:1:1: more leads out of in/. It was not read"

    def test_what_is_no_file_is_not_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.yaml")
        (tmp_path / "b.yaml").mkdir()
        (broken,) = load_pipeline_folder(tmp_path)
        assert isinstance(broken, BrokenPipeline)
        assert str(broken.error) == "a.yaml:1:1: a.yaml is not a regular file"

    def test_a_folder_that_is_none_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgumentError, match=r"does not exist\. Name the folder"):
            load_pipeline_folder(tmp_path / "none")


class TestSecondPass:
    def test_gives_the_same_objects_until_something_changes(self, write: Write, tmp_path: Path) -> None:
        write("f.yaml", FRAUD)

        def load(**variables: str) -> LoadedPipeline | BrokenPipeline:
            (found,) = load_pipeline_folder(tmp_path, variables=variables)
            return found

        first = load(A="1")
        assert load(A="2") is first
        write("defaults.yaml", "spec: {image: 'x:${A:-0}'}\n")
        second = load(A="1")
        assert isinstance(second, LoadedPipeline)
        assert second.pipeline.spec.image == "x:1"
        assert load(A="1") is second
        third = load(A="2")
        assert isinstance(third, LoadedPipeline)
        assert third.pipeline.spec.image == "x:2"
        write("f.yaml", FRAUD + "  owner: x\n")
        assert isinstance(load(A="2"), BrokenPipeline)
        shutil.copy(FILES / "fraud_detection.yaml", tmp_path / "f.yaml")
        assert isinstance(load(A="2"), LoadedPipeline)
