"""Single fields of a pipeline file: every mistake is named with its place and what is allowed."""

from __future__ import annotations

import pytest

from tests.support.pipeline_files import CHURN, Write, changed, problems

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
    ("  owner: growth", "  owner: 7", "7:10: metadata.owner: must be text; got 7. Write '7' in quotes"),
    (
        "  model:\n    name: churn\n    experimentName: churn",
        "  model: x",
        "26:10: spec.model: must be a mapping; got 'x'",
    ),
    (
        "    path: training",
        "    path: ../x",
        "13:11: spec.sourceCode.path: '../x' leads outside; allowed: a path relati",
    ),
    ("trainingScript: train.py", "trainingScript: /t.py", "15:19: spec.trainingScript: '/t.py' leads outside"),
    (
        "    revision: main",
        "    revision: main\n    tags: v*",
        "11:5: spec.sourceCode: revision and tags exclude each other",
    ),
    ("evaluation: evaluation.csv", "uri: s3://x", "21:5: spec.data: data has root and uri of root, uri, dvc and lfs"),
    ("    target: left\n", "", "21:5: spec.data: data.target is missing: name the column of the label"),
    ('cpu: "2"', "cpu: two", "31:20: spec.resources.cpu: is 'two'; allowed: a Kubernetes quantity such as \"500m\""),
    ("gpu: 0", "gpu: 0.5", "31:43: spec.resources.gpu: must be a whole number; got 0.5"),
    ("gpu: 0", "gpu: -1", "31:43: spec.resources.gpu: must be at least 0; got -1"),
    ("runtime: kubernetes", "runtime: k8s", "30:12: spec.runtime: is 'k8s'; allowed: local, kubernetes"),
    (
        "    OMP_NUM",
        "    2OMP_NUM",
        "36:5: spec.env.2OMP_NUM_THREADS: must be letters, digits and '_', not beginning with a d",
    ),
    ('THREADS: "2"', "THREADS: 2", "36:22: spec.env.OMP_NUM_THREADS: must be text; got 2. Write '2' in quotes"),
    ('"0 2 * * 1-5"', "99 * * * *", "38:13: spec.triggers[0].cron: '99' in '99 * * * *' is no minute; allowed: *, 0"),
    ("Europe/Berlin", "Europe/Berln", "39:17: spec.triggers[0].timezone: is 'Europe/Berln'; allowed: a time zone"),
    ("- onDataChange: true", "- onDataChange: false", "41:21: spec.triggers[2].onDataChange: false starts nothing; le"),
    (
        "- onDataChange: true",
        "- onDataChnge: true",
        "41:7: spec.triggers[2].onDataChnge: is not a known name. Did you mean 'onDataChange'? Kn",
    ),
    (
        "- onDataChange: true",
        "- {onDrift: true, cron: '@daily'}",
        "41:7: spec.triggers[2]: a trigger has exactly one of",
    ),
    (
        "poll: 2m",
        "poll: 2",
        "40:40: spec.triggers[1].onCommit.poll: 2 has no unit; allowed: a whole number and s, m, h or d",
    ),
    ("poll: 2m", "poll: 0s", "40:40: spec.triggers[1].onCommit.poll: '0s' is no time at all; allowed: more than zero"),
    ("default: 0.001", "default: fast", "46:15: spec.triggers[5].manual.params.lr: 'fast' is not of type number"),
    ("default: 0.001", "default: -1", "46:15: spec.triggers[5].manual.params.lr: default -1 is below minimum 0"),
    (
        "- name: lint",
        "- name: deploy",
        "56:13: spec.stages[1].name: 'deploy' is not available in this version; take it",
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
        "67:3: spec.approval: 'approval' is not available in this version; tak",
    ),
    (
        "  retries:",
        "  trafficPolicy: x\n  retries:",
        "67:3: spec.trafficPolicy: 'trafficPolicy' is not available in th",
    ),
    (
        "      checkpoints",
        "      rollback: {}\n      checkpoints",
        "61:7: spec.stages[2].rollback: 'rollback' is not availab",
    ),
    (
        "f1: 0.8",
        "f1: .nan",
        "63:30: spec.stages[3].metricsThreshold.f1: .nan is no finite number; allowed: finite numbers",
    ),
    (
        "f1: 0.8",
        "f1: high",
        "63:30: spec.stages[3].metricsThreshold.f1: is 'high'; allowed: a number, or >=, <=, > or < an",
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
    ("  env:\n", "  secretEnv: {KEY: hunter2}\n  env:\n", "35:20: spec.secretEnv.KEY: does not say where the value is"),
    (
        "  env:\n",
        "  secretEnv: {KEY: 12345}\n  env:\n",
        "35:20: spec.secretEnv.KEY: does not say where the value is kept",
    ),
    (
        "webhook: team_chat",
        "webhook: https://hooks.example.com/T0/x",
        "70:46: spec.notifications[0].webhook: is an addr",
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
        "20:5: spec.config.seed: the key is here twice, first in line 19; each ke",
    ),
    ("lr: 1e-3", "lr: .inf", "18:20: spec.config.training.lr: .inf is no finite number; allowed: finite numbers"),
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
