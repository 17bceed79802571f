"""Single fields of a pipeline file: every mistake is named with its place and what is allowed."""

from __future__ import annotations

import pytest

from airflow_mcp.dag_rendering.loader import load_pipeline_file
from tests.support.pipeline_files import CHURN, FRAUD, Write, changed, problems

MISTAKES = [
    ("  trainingScript: train.py\n", "", "9:1: spec.trainingScript: is missing: Python script that trains"),
    (
        "trainingScript: t",
        "trainingscript: t",
        "15:3: spec.trainingscript: is not a known name. Did you mean 'trainingScript'? Known nam",
    ),
    (
        "  env:\n",
        "  envs: {}\n  env:\n",
        "35:3: spec.envs: is not a known name. Did you mean 'env'? Known names: arguments, candid",
    ),
    (
        "sourceCode:\n    repoUrl",
        "sourceCode:\n    uri",
        "11:5: spec.sourceCode.uri: is not a known name. Known names: gitConnId, path, ",
    ),
    (
        "name: churn\n",
        "name: Churn!\n",
        "5:9: metadata.name: must be lower-case letters, digits, '-', '_' and '.', beginning and ",
    ),
    (
        "name: churn\n",
        f"name: {'c' * 201}\n",
        "5:9: metadata.name: must be text of at most 200 characters; got 'ccccccccccccccccccccccc",
    ),
    (
        "kind: ModelPipeline",
        "kind: ModelPipelin",
        "3:7: kind: must be ModelPipeline; got 'ModelPipelin'. Did you mean 'ModelPipeline'?",
    ),
    (
        "example.com/v1",
        "example.com/v2",
        "2:13: apiVersion: must be mcp.example.com/v1; got 'mcp.example.com/v2'. Did you mean 'mc",
    ),
    ("  tags: [growth, weekly]", "  tags: growth", "8:9: metadata.tags: must be a list; got 'growth'. Write [growth]"),
    ("  owner: growth", "  owner: 1.10", "7:10: metadata.owner: must be text; got 1.1. Put what you wrote in quotes"),
    ("  owner: growth", "  owner: 7", "7:10: metadata.owner: must be text; got 7. Write '7' in quotes"),
    (
        "  model:\n    name: churn\n    experimentName: churn",
        "  model: x",
        "26:10: spec.model: must be a mapping; got 'x'",
    ),
    (
        "    path: training",
        "    path: ../x",
        "13:11: spec.sourceCode.path: must be a relative path with / and without ..; got '../x'",
    ),
    (
        "trainingScript: train.py",
        "trainingScript: /t.py",
        "15:19: spec.trainingScript: must be a relative path with / and without ..; got '/t.py'",
    ),
    (
        "    revision: main",
        "    revision: main\n    tags: v*",
        "11:5: spec.sourceCode: revision and tags exclude each other",
    ),
    (
        "evaluation: evaluation.csv",
        "uri: s3://x",
        "21:5: spec.data: data must have exactly one of root, uri, dvc and lfs; got root and uri",
    ),
    (
        "    target: left\n",
        "",
        "21:5: spec.data: data.target is missing: name the column with the label, or leave the ev",
    ),
    (
        'cpu: "2"',
        "cpu: two",
        '31:20: spec.resources.cpu: must be a Kubernetes quantity such as "500m", "2" or "4Gi"; g',
    ),
    ("gpu: 0", "gpu: 0.5", "31:43: spec.resources.gpu: must be a whole number; got 0.5"),
    ("gpu: 0", "gpu: -1", "31:43: spec.resources.gpu: must be at least 0; got -1"),
    ("runtime: kubernetes", "runtime: k8s", "30:12: spec.runtime: must be one of local, kubernetes; got 'k8s'"),
    (
        "    OMP_NUM",
        "    2OMP_NUM",
        "36:5: spec.env.2OMP_NUM_THREADS: must be letters, digits and '_', not beginning with a d",
    ),
    ('THREADS: "2"', "THREADS: 2", "36:22: spec.env.OMP_NUM_THREADS: must be text; got 2. Write '2' in quotes"),
    (
        '"0 2 * * 1-5"',
        "99 * * * *",
        "38:13: spec.triggers[0].cron: the minute must be *, 0 to 59, a range (1-5), a list (1,3)",
    ),
    (
        "Europe/Berlin",
        "Europe/Berln",
        "39:17: spec.triggers[0].timezone: must be a time zone such as UTC or Europe/Berlin; got ",
    ),
    (
        "- onDataChange: true",
        "- onDataChange: false",
        "41:21: spec.triggers[2].onDataChange: must be true or a mapping; got false. Remove the t",
    ),
    (
        "- onDataChange: true",
        "- onDataChnge: true",
        "41:7: spec.triggers[2].onDataChnge: is not a known name. Did you mean 'onDataChange'? Kn",
    ),
    (
        "- onDataChange: true",
        "- {onDrift: true, cron: '@daily'}",
        "41:7: spec.triggers[2]: a trigger must have exactly one of cron, onCommit, onDataChange,",
    ),
    (
        "poll: 2m",
        "poll: 2",
        "40:40: spec.triggers[1].onCommit.poll: must have a unit: s, m, h or d, for example 30m; ",
    ),
    ("poll: 2m", "poll: 0s", "40:40: spec.triggers[1].onCommit.poll: must be longer than zero; got '0s'"),
    ("default: 0.001", "default: fast", "46:15: spec.triggers[5].manual.params.lr: must be of type number; got 'fast'"),
    (
        "default: 0.001",
        "default: -1",
        "46:15: spec.triggers[5].manual.params.lr: default must be at least the minimum 0; got -1",
    ),
    (
        "- name: lint",
        "- name: approval",
        "57:7: spec.stages[1].command: is not a known name. Known names: environments, name, needs, seats",
    ),
    (
        "- name: lint",
        "- name: Lint it",
        "56:13: spec.stages[1].name: must be lower-case letters, digits and '_', beginning with a",
    ),
    (
        "- name: evaluate",
        "- name: evalute",
        "62:13: spec.stages[3].name: there is no stage 'evalute'. Did you mean 'evaluate'? A step",
    ),
    (
        "[ruff, check, .]",
        "[]",
        "57:16: spec.stages[1].command: must be a list with at least 1 entry; got an empty list",
    ),
    ("      command: [ruff, check, .]\n", "", "56:7: spec.stages[1].command: is missing: Command to run in the source"),
    (
        "  retries:",
        "  approval: {}\n  retries:",
        "67:3: spec.approval: is not a known name here. It is a stage: write stages: - name: approval. The risk is ",
    ),
    (
        "  retries:",
        "  trafficPolicy: x\n  retries:",
        "67:18: spec.trafficPolicy: must be a mapping; got 'x'",
    ),
    (
        "      checkpoints",
        "      approval: {}\n      checkpoints",
        "61:7: spec.stages[2].approval: is not a known name. Known n",
    ),
    (
        "f1: 0.8",
        "f1: .nan",
        "63:30: spec.stages[3].metricsThreshold.f1: must be a finite number; got .nan",
    ),
    (
        "f1: 0.8",
        "f1: high",
        "63:30: spec.stages[3].metricsThreshold.f1: must be a number, or >=, <=, > or < and a num",
    ),
    (
        "slices: [country]",
        "slices: country",
        "64:15: spec.stages[3].slices: must be a list; got 'country'. Write [country]",
    ),
    (
        '"f1 >= champion - 0.01"',
        "f1 is good",
        "66:20: spec.stages[4].thresholds[0]: threshold must be a rule such as 'accuracy >= 0.92'",
    ),
    (
        "  env:\n",
        "  secretEnv: {KEY: hunter2}\n  env:\n",
        "35:20: spec.secretEnv.KEY: must be '<connection>.<field>' with a field of login, passwor",
    ),
    (
        "  env:\n",
        "  secretEnv: {KEY: 12345}\n  env:\n",
        "35:20: spec.secretEnv.KEY: must be '<connection>.<field>' with a field of login, passwor",
    ),
    (
        "webhook: team_chat",
        "webhook: https://hooks.example.com/T0/x",
        "70:46: spec.notifications[0].webhook: must be the id of an Airflow connection that holds",
    ),
    (
        "on: [failure, gateRejected]",
        "on: failure",
        "70:12: spec.notifications[0].on: must be a list; got 'failure'. Write [failure]",
    ),
    ("attempts: 3", "attempts: 99", "67:23: spec.retries.attempts: must be at most 20; got 99"),
    (
        "on: [failure",
        "on: [fail",
        "70:13: spec.notifications[0].on[0]: must be one of failure, success, gateRejected; got '",
    ),
    (
        "    seed: 7",
        "    seed: 7\n    seed: 8",
        "20:5: spec.config.seed: the key is here twice, first in line 19. Give each key once",
    ),
    ("lr: 1e-3", "lr: .inf", "18:20: spec.config.training.lr: must be a finite number; got .inf"),
]


@pytest.mark.parametrize(
    ("old", "new", "problem"), MISTAKES, ids=[problem.split(": ")[1] for _, _, problem in MISTAKES]
)
def test_a_mistake_is_named_with_line_column_field_and_what_is_allowed(
    write: Write, old: str, new: str, problem: str
) -> None:
    found = problems(write("churn.yaml", changed(CHURN, old, new)))
    assert any(each.startswith(f"churn.yaml:{problem}") for each in found), found


def test_all_problems_of_a_file_come_at_once_and_in_its_order(write: Write) -> None:
    text = changed(
        changed(changed(CHURN, "owner: growth", "owner: 7"), "gpu: 0", "gpu: x"), "delay: 30s", "delay: ever"
    )
    fields = [problem.split(": ")[1] for problem in problems(write("churn.yaml", text))]
    assert fields == ["metadata.owner", "spec.resources.gpu", "spec.retries.delay"]


class TestAddressesThatCannotWork:
    URL = "https://github.com/team/ml-fraud-v3"

    @pytest.mark.parametrize(
        ("url", "hint"),
        [
            ("htps://github.com/x", "Did you mean https://github.com/x?"),
            ("github://team/x", "must begin with one of https://, http://, ssh://, file://"),
            (f"{URL}/tree/main", f"Write repoUrl: {URL} and revision: main"),
            (f"{URL}/-/blob/v1/train.py", f"Write repoUrl: {URL} and revision: v1"),
            (f"{URL}@v1", f"Write repoUrl: {URL} and revision: v1"),
            (f"{URL}.git@v1.2", f"Write repoUrl: {URL}.git and revision: v1.2"),
        ],
    )
    def test_of_code_are_refused_with_what_to_write(self, write: Write, url: str, hint: str) -> None:
        (found,) = problems(write("f.yaml", changed(FRAUD, self.URL, url)))
        assert hint in found

    @pytest.mark.parametrize(
        "url",
        ["https://git@host.example.com/team/x.git", "ssh://git@host:22/x", "git@github.com:team/x", "file:///srv/x"],
    )
    def test_of_code_that_can_work_are_taken(self, write: Write, url: str) -> None:
        loaded = load_pipeline_file(write("f.yaml", changed(FRAUD, self.URL, url)), variables={})
        assert loaded.pipeline.spec.source_code.repo_url == url

    @pytest.mark.parametrize(
        "image", ['"Tensorflow 2.12"', f"x@sha256:{'a' * 32}", "https://registry/x:1", "Team/Churn:1"]
    )
    def test_of_images_are_refused(self, write: Write, image: str) -> None:
        (found,) = problems(write("f.yaml", changed(FRAUD, "tensorflow:2.12", image)))
        assert "spec.stages[0].image: must be an image such as registry.example.com/team/churn:1.2" in found

    @pytest.mark.parametrize(
        ("image", "taken"),
        [
            ("python", "python"),
            ("localhost:5000/a/b_c:1.2-rc1", "localhost:5000/a/b_c:1.2-rc1"),
            (f"ghcr.io/t/x:1@sha256:{'a' * 64}", f"ghcr.io/t/x:1@sha256:{'a' * 64}"),
            ('"${IMAGE:-registry/x:1}"', "registry/x:1"),
        ],
    )
    def test_of_images_that_can_work_are_taken(self, write: Write, image: str, taken: str) -> None:
        loaded = load_pipeline_file(write("f.yaml", changed(FRAUD, "tensorflow:2.12", image)), variables={})
        assert loaded.pipeline.spec.stages[0].image == taken


SAID = [
    ("    - name: evaluate\n", "    - needs: [build]\n", "is missing: each stage needs a name, one of build, train"),
    (
        "    - name: evaluate\n      metricsThreshold",
        "    - metricsThreshold",
        "each stage needs a name, one of build, train, evaluate, gate, register, approval, deploy, promote or one of "
        "your own. "
        "These fields belong to name: evaluate",
    ),
    ("    - name: evaluate\n", "    - train\n    - name: evaluate\n", "for example - name: train; got 'train'"),
    ("\nspec:", "\nstages: []\nspec:", "stages: belongs under spec"),
    ("\nspec:", "\nowner: me\nspec:", "owner: belongs under metadata"),
    ("  triggers:", "  timezone: UTC\n  triggers:", "It belongs beside cron, in a trigger"),
    ("onCommit: true", "on: push", "Did you mean 'onCommit'?"),
    ("- onCommit: true", "- onCommit", "must be a mapping, for example - onCommit: true; got 'onCommit'"),
    ("onCommit: true", "onCommit: 'true'", "must be true without quotes, or a mapping; got 'true'"),
    ("  triggers:", "  data: {path: a.csv}\n  triggers:", "It belongs under data.dvc or data.lfs"),
    ("trainingScript: train.py", "trainingScript: src\\train.py", "must have / between folders, on Windows too"),
    ("trainingScript: train.py", "trainingScript: ${A:-train.py}", "because variables are not replaced here"),
    (
        "trainingScript: train.py",
        "trainingScript train.py",
        "7:3: spec: this is not YAML: there is a key without a value",
    ),
    (
        "trainingScript: train.py",
        "trainingScript:train.py",
        "7:3: spec: this is not YAML: there is a key without a value",
    ),
    (
        "trainingScript: train.py",
        'trainingScript: "train.py',
        "this is not YAML: the quote that opens here is closed only in line 10",
    ),
    (
        FRAUD[FRAUD.index("  trainingScript") :],
        '  trainingScript: "train.py\n',
        "7:19: spec.trainingScript: this is not YAML: the q",
    ),
    ("accuracy: 0.92", "accuracy: >= 0.92", "put text that begins with > or | in quotes"),
    ('cron: "0 2 * * *"', "cron: * * * * *", "put text that begins with * or & in quotes"),
    ("  trainingScript", " \xa0trainingScript", "7:2: a no-break space (U+00A0) cannot indent"),
    ("https://github.com/team/ml-fraud-v3", "$REPO", "A variable is written ${REPO}"),
    ("https://github.com/team/ml-fraud-v3", '"{{ var.repo }}"', "Templates are not rendered in pipeline files"),
]


@pytest.mark.parametrize(("old", "new", "said"), SAID)
def test_a_common_mistake_is_told_with_what_to_write(write: Write, old: str, new: str, said: str) -> None:
    found = problems(write("f.yaml", changed(FRAUD, old, new)))
    assert any(said in each for each in found), found


def test_of_a_file_of_another_kind_only_the_kind_is_told(write: Write) -> None:
    text = changed(changed(FRAUD, "kind: ModelPipeline", "kind: ModelPipelines"), "  trainingScript: train.py\n", "")
    (found,) = problems(write("f.yaml", text))
    assert "kind: must be" in found
    assert "ModelPipeline" in found
