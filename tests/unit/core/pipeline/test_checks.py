"""Fields of a pipeline that must fit together."""

from __future__ import annotations

import pytest

from airflow_mcp.dag_rendering.loader import load_pipeline_file
from tests.support.pipeline_files import CHURN, FRAUD, Write, changed, problems

MISTAKES = [
    (
        "    namespace: $",
        "    namespac: $",
        "33:5: spec.kubernetes.namespac: is not a known name. Did you mean 'namespace'? Known nam",
    ),
    ("priority_class: batch", "priority_class: [x]", "34:21: spec.kubernetes.priority_class: must be text; got a list"),
    (
        "- onDataChange: true",
        "- onCommit: true",
        "41:7: spec.triggers[2]: onCommit is in triggers[1] already. List it once",
    ),
    (
        "- onDataChange: true",
        "- cron: '@daily'",
        "41:7: spec.triggers[2].timezone: must be the same for every cron; got UTC and Europe/Ber",
    ),
    ("- onDataChange: true", "- onDrift: true", "42:7: spec.triggers[3]: the same trigger is in triggers[2] already"),
    (
        "sets: training.lr",
        "sets: training.lrr",
        "46:64: spec.triggers[5].manual.params.lr.sets: 'training.lrr' is not a value of spec.con",
    ),
    (
        "          lr: {",
        "          dry_run: {",
        "46:20: spec.triggers[5].manual.params.dry_run: 'dry_run' is a field of",
    ),
    (
        "    - name: deep",
        "    - name: small",
        "49:13: spec.candidates[1].name: two candidates are called 'small'. Give each its own nam",
    ),
    (
        "  select: {metric: f1}\n",
        "",
        "48:5: spec.candidates: select is missing: name the metric that decides, for example sele",
    ),
    (
        "{metric: f1}",
        "{metric: hits}",
        "52:20: spec.select.metric: it is not known whether higher or lower values of 'hi",
    ),
    (
        "- name: lint",
        "- name: select",
        "56:13: spec.stages[1].name: 'select' is the name of a task that is filled in. Choose ano",
    ),
    (
        "- name: lint",
        "- name: train_deep",
        "56:13: spec.stages[1].name: 'train_deep' is the name of a task that is filled in. Choose",
    ),
    (
        "- name: lint",
        "- name: build",
        "56:13: spec.stages[1].name: 'build' is also the name of stages[0]. List each stage once",
    ),
    (
        "needs: [build]",
        "needs: [biuld]",
        "58:15: spec.stages[1].needs[0]: there is no stage 'biuld'. Did you mean 'build'? Known n",
    ),
    ("needs: [build]", "needs: [gate]", "58:14: spec.stages[1].needs: the stages wait for each other: "),
    ("needs: [build]", "needs: [lint]", "58:14: spec.stages[1].needs: the stages wait for each other: lint needs lint"),
    (
        "f1: 0.8",
        "hits: 3",
        "63:32: spec.stages[3].metricsThreshold.hits: it is not known whether higher or l",
    ),
    (
        "  env:\n",
        "  secretEnv: {OMP_NUM_THREADS: a.login}\n  env:\n",
        "35:32: spec.secretEnv.OMP_NUM_THREADS: OMP_NUM_THREADS is in env as well. Keep it in one",
    ),
    (
        "      needs: [build]",
        "      secretEnv: {OMP_NUM_THREADS: a.login}",
        "56:7: spec.stages[1]: OMP_NUM_THREADS is in env and in secretEnv. Keep it in one of them",
    ),
    ("delay: 30s", "delay: 30m", "67:12: spec.retries: maxDelay must not be shorter than delay 30m; got 5m"),
]


@pytest.mark.parametrize(
    ("old", "new", "problem"), MISTAKES, ids=[problem.split(": ")[1] for _, _, problem in MISTAKES]
)
def test_fields_that_do_not_fit_together_are_named_with_line_column_and_field(
    write: Write, old: str, new: str, problem: str
) -> None:
    found = problems(write("churn.yaml", changed(CHURN, old, new)))
    assert any(each.startswith(f"churn.yaml:{problem}") for each in found), found


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "  - name: evaluate\n",
            "  - name: gate\n",
            "fraud.yaml:15:7: spec.stages[1].metricsThreshold: is not a known name. Did you mean 'thr",
        ),
        (
            "  stages:",
            "  stopAfter: evaluate\n  stages:",
            "fraud.yaml:17:9: spec.stages[1].metricsThreshold: stopAfter",
        ),
        (
            "accuracy: 0.92",
            "acuracy: 0.92",
            "fraud.yaml:16:9: spec.stages[1].metricsThreshold.acuracy: metric must be spelled as a known one or be "
            "clearly different; got 'acuracy'. Did you mean 'accuracy'?",
        ),
        (
            "accuracy: 0.92",
            "accuracy: 92",
            "fraud.yaml:16:19: spec.stages[1].metricsThreshold.accuracy: no model can reach accuracy ",
        ),
        (
            "    - name: evaluate\n",
            "    - name: gate\n      thresholds: [f1 > 1]\n    - name: evaluate\n",
            "fraud.yaml:15:20: spec.stages[1].thresholds[0]: no model can reach f1 > 1, because f1 is",
        ),
        (
            "https://github.com/team/ml-fraud-v3",
            "github.com/team/ml-fraud-v3",
            "fraud.yaml:6:15: spec.sourceCode.repoUrl: there is no folder github.com/team/ml-fraud-v3",
        ),
        ("accuracy: 0.92\n        latencyMs: 150", "{}", "fraud.yaml:12:5: spec.stages: no threshold says what a good"),
        ("ml-fraud-v3", "ml-fraud-v3\n  select: {metric: f1}", "fraud.yaml:7:11: spec.select: there are no candidates"),
        (
            "    - onCommit: true",
            "    - onDataChange: true",
            "fraud.yaml:9:21: spec.triggers[0].onDataChange: spec.data is missing, so no change of da",
        ),
        (
            "ml-fraud-v3",
            "x\n  catchup: yes",
            "fraud.yaml:7:12: spec.catchup: yes is ambiguous in YAML. Write true, or 'yes' for the te",
        ),
        ('    - cron: "0 2 * * *"', "  catchup: true", "fraud.yaml:10:12: spec.catchup: there is no cron whose missed"),
    ],
)
def test_fields_must_fit_together(write: Write, old: str, new: str, problem: str) -> None:
    found = problems(write("fraud.yaml", changed(FRAUD, old, new)))
    assert any(each.startswith(problem) for each in found), found


@pytest.mark.parametrize("stage", ["{name: build}", "{name: own, command: [make]}"])
def test_a_pod_cannot_run_the_code_of_a_folder(write: Write, stage: str) -> None:
    write("code/train.py", "")
    text = changed(changed(FRAUD, "https://github.com/team/ml-fraud-v3", "code"), "    - onCommit: true\n", "")
    text = changed(text, "    - name: build\n      image: tensorflow:2.12", f"    - {stage}")
    (found,) = problems(write("f.yaml", text.replace("  stages:", "  runtime: kubernetes\n  stages:")))
    assert found.startswith("f.yaml:12:7: spec.stages[0]: '")
    assert "would run in a pod, which cannot see the folder code. Put the code into Git" in found
    assert load_pipeline_file(write("f.yaml", text), "test", variables={})


@pytest.mark.parametrize("trigger", ["true", "{alias: champion}", "{model: fraud-detection-pipeline}"])
def test_a_pipeline_does_not_start_itself(write: Write, trigger: str) -> None:
    path = write("f.yaml", changed(FRAUD, "onCommit: true", f"onModelChange: {trigger}"))
    assert problems(path)[0].startswith("f.yaml:9:22: spec.triggers[0].onModelChange: each run would start the next")
    allowed = changed(FRAUD, "onCommit: true", "onModelChange: {alias: approved}")
    assert load_pipeline_file(write("f.yaml", allowed), variables={})


@pytest.mark.parametrize("bound", ['">= 1"', '"> 0"', "0", '"< 1"', '"<= 0"'])
def test_a_threshold_that_a_model_can_reach_is_taken(write: Write, bound: str) -> None:
    assert load_pipeline_file(write("f.yaml", changed(FRAUD, "accuracy: 0.92", f"accuracy: {bound}")), variables={})


def test_a_commit_is_no_source_of_new_commits(write: Write) -> None:
    text = changed(
        FRAUD, "https://github.com/team/ml-fraud-v3", f"{{repoUrl: https://github.com/t/m, revision: {'a1' * 20}}}"
    )
    assert (
        "sourceCode.revision is a single commit, so there would never be a new one"
        in problems(write("f.yaml", text))[0]
    )


class TestProd:
    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            (
                'sourceCode: {tags: "v*"}',
                "image: x",
                "12:15: spec.sourceCode.revision: must be a release tag in prod, such as v1.2.0; got 'mai",
            ),
        ],
    )
    def test_refuses_a_branch(self, write: Write, old: str, new: str, problem: str) -> None:
        path = write("churn.yaml", changed(CHURN, old, new))
        found = problems(path, "prod")
        assert any(each.startswith(f"churn.yaml:{problem}") for each in found), found
        assert "hunter2" not in "".join(found)

    @pytest.mark.parametrize("ref", ["v1.2.0", "1.0", "refs/tags/spring", "v2.0.0-rc.1"])
    def test_takes_a_release_tag_by_name(self, write: Write, ref: str) -> None:
        path = write("churn.yaml", changed(CHURN, '{tags: "v*"}', f"{{revision: {ref!r}}}"))
        source = load_pipeline_file(path, "prod", variables={}).pipeline.spec.source_code
        assert (source.revision, source.tags) == (ref, None)

    def test_refuses_a_folder(self, write: Write) -> None:
        path = write("f.yaml", changed(FRAUD, "https://github.com/team/ml-fraud-v3", "src"))
        write("src/train.py", "")
        assert (
            "f.yaml:6:15: spec.sourceCode: must be a Git URL in prod, which runs release tags only; got a folder"
            in "".join(problems(path, "prod"))
        )
