"""Defaults below a pipeline file, the overlay of an environment above it, and variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_mcp.dag_rendering.loader import LoadedPipeline, load_pipeline_file, load_pipeline_folder
from airflow_mcp.exceptions import InvalidArgumentError
from tests.support.paths import PIPELINES as FILES
from tests.support.pipeline_files import CHURN, FRAUD, Write, changed, problems

MISTAKES = [
    ("${NAMESPACE:-ml}", "${NAMESPACE}", "33:16: spec.kubernetes.namespace: NAMESPACE is not set in the environment"),
    (
        "${NAMESPACE:-ml}",
        "${NAME SPACE}",
        "33:16: spec.kubernetes.namespace: must use only ${NAME} and ${NAME:-default}; got '${NAM",
    ),
    (
        "    prod:",
        "    production:",
        "75:5: spec.environments.production: is not a known name. Did you mean 'prod'? Known name",
    ),
    (
        "      runtime: local",
        "      stages: []",
        "73:7: spec.environments.dev.stages: is not a known name. Known names: config, data, env,",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "problem"), MISTAKES, ids=[problem.split(": ")[1] for _, _, problem in MISTAKES]
)
def test_a_mistake_in_an_overlay_or_variable_is_named_with_its_place(
    write: Write, old: str, new: str, problem: str
) -> None:
    found = problems(write("churn.yaml", changed(CHURN, old, new)))
    assert any(each.startswith(f"churn.yaml:{problem}") for each in found), found


def test_what_an_overlay_hides_must_be_right_too(write: Write) -> None:
    found = problems(write("churn.yaml", changed(CHURN, '"0 2 * * 1-5"', "often")), "dev")
    assert found[0].startswith("churn.yaml:38:13: spec.triggers[0].cron: must have five fields")


class TestEnvironments:
    def test_an_overlay_merges_maps_and_replaces_lists(self) -> None:
        dev, prod = (load_pipeline_file(FILES / "churn.yaml", name, variables={}) for name in ("dev", "prod"))
        assert (dev.pipeline.spec.triggers, len(prod.pipeline.spec.triggers)) == ((), 6)
        assert prod.config == {"training": {"lr": 0.001, "depth": 6}, "seed": 11}
        assert prod.pipeline.spec.kubernetes == {"namespace": "ml-prod", "priority_class": "batch"}
        assert (prod.pipeline.spec.source_code.tags, prod.pipeline.spec.source_code.revision) == ("v*", None)
        assert prod.origin("spec", "config", "seed") == "churn.yaml:77"
        assert dev.origin("spec", "config", "seed") == "churn.yaml:19"

    def test_variables_are_replaced_in_marked_fields_only(self, write: Write) -> None:
        text = changed(changed(CHURN, 'THREADS: "2"', "THREADS: ${TAG}"), "lr: 1e-3", "lr: 1e-3, note: '${TAG}'")
        loaded = load_pipeline_file(
            write("churn.yaml", text), "test", variables={"TAG": "2.0", "DATA_ROOT": "", "NAMESPACE": "{{ x }}"}
        )
        spec = loaded.pipeline.spec
        assert spec.image == "registry.example.com/churn:2.0"
        assert spec.data is not None
        assert spec.data.root == "/data/churn"
        assert spec.kubernetes["namespace"] == "{{ x }}"
        assert spec.env["OMP_NUM_THREADS"] == "${TAG}"
        assert loaded.config == {"training": {"lr": 0.001, "note": "${TAG}", "depth": 6}, "seed": 7}

    def test_a_value_is_never_read_as_yaml_or_expanded_again(self, write: Write) -> None:
        path = write("churn.yaml", changed(CHURN, "${TAG:-latest}", "${TAG}"))
        image = load_pipeline_file(path, "test", variables={"TAG": "x\\n}: ${HOME}"}).pipeline.spec.image
        assert image == "registry.example.com/churn:x\\n}: ${HOME}"

    def test_variables_of_other_environments_are_not_needed(self, write: Write) -> None:
        path = write("churn.yaml", changed(CHURN, "namespace: ml-prod", "namespace: '${PROD_NAMESPACE}'"))
        assert load_pipeline_file(path, "test", variables={})
        assert "PROD_NAMESPACE is not set in the environment" in problems(path, "prod")[0]

    def test_an_unknown_environment_is_refused(self) -> None:
        with pytest.raises(InvalidArgumentError, match="environment must be one of dev, test, prod; got 'staging'"):
            load_pipeline_file(FILES / "churn.yaml", "staging")


class TestDefaults:
    def test_stand_below_every_file_and_keep_their_place(self, write: Write) -> None:
        write("defaults.yaml", "spec:\n  runtime: kubernetes\n  retries: {attempts: 5}\n  env: {A: a}\n")
        loaded = load_pipeline_file(write("f.yaml", FRAUD + "  env: {B: b}\n"), variables={})
        assert (loaded.pipeline.spec.runtime, loaded.pipeline.spec.retries.attempts) == ("kubernetes", 5)
        assert loaded.pipeline.spec.env == {"A": "a", "B": "b"}
        assert loaded.origin("spec", "runtime") == "defaults.yaml:2"

    def test_a_mistake_in_them_is_named_in_them(self, write: Write) -> None:
        write("defaults.yaml", "spec:\n  retries: {attempts: many}\nkind: x\n")
        found = problems(write("f.yaml", FRAUD))
        assert found == [
            "defaults.yaml:2:23: spec.retries.attempts: must be a whole number; got 'many'",
            "defaults.yaml:3:1: kind: cannot have defaults; only metadata and spec can",
        ]

    def test_the_nearest_ones_up_to_the_root_count(self, write: Write, tmp_path: Path) -> None:
        write("defaults.yaml", "spec: {runtime: local}\n")
        write("team/defaults.yaml", "spec: {runtime: kubernetes}\n")
        write("team/a.yaml", FRAUD)
        write("other/b.yaml", changed(FRAUD, "name: fraud-detection-pipeline", "name: b"))
        loaded = {
            each.file: each.pipeline.spec.runtime
            for each in load_pipeline_folder(tmp_path)
            if isinstance(each, LoadedPipeline)
        }
        assert loaded == {"other/b.yaml": "local", "team/a.yaml": "kubernetes"}
