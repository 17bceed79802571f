"""Pipeline files of a folder: what is read, and what every mistake is called and where."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_mcp.dag_rendering.loader import BrokenPipeline, LoadedPipeline, load_pipeline_file, load_pipeline_folder
from airflow_mcp.exceptions import InvalidArgumentError, PipelineSpecError
from tests.support.paths import PIPELINES

FILES = PIPELINES
CHURN = (FILES / "churn.yaml").read_text(encoding="utf-8")
FRAUD = (FILES / "fraud_detection.yaml").read_text(encoding="utf-8")
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def changed(text: str, old: str, new: str) -> str:
    assert old in text, f"{old!r} is not in the file"
    return text.replace(old, new, 1)


def problems(path: Path, environment: str = "test") -> list[str]:
    with pytest.raises(PipelineSpecError) as caught:
        load_pipeline_file(path, environment, variables={})
    return [str(problem) for problem in caught.value.problems]


class TestTheFileOfTheIssue:
    def test_is_read_as_it_stands(self) -> None:
        loaded = load_pipeline_file(FILES / "fraud_detection.yaml", variables={})
        spec = loaded.pipeline.spec
        assert (loaded.file, loaded.environment, loaded.text) == ("fraud_detection.yaml", "dev", FRAUD)
        assert spec.source_code.url == "https://github.com/team/ml-fraud-v3"
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
        "sourceCode:\n    url",
        "sourceCode:\n    uri",
        "11:5: spec.sourceCode.uri: is not a known name. Did you mean 'url'? Known names: connect",
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
    ("  model:\n    name: churn\n    experiment: churn", "  model: x", "26:10: spec.model: must be a mapping; got 'x'"),
    (
        "    path: training",
        "    path: ../x",
        "13:11: spec.sourceCode.path: '../x' leads outside; allowed: a path relati",
    ),
    ("trainingScript: train.py", "trainingScript: /t.py", "15:19: spec.trainingScript: '/t.py' leads outside"),
    ("    ref: main", "    ref: main\n    tags: v*", "11:5: spec.sourceCode: ref and tags exclude each other"),
    ("https://github", "https://me:hunter2@github", "11:10: spec.sourceCode.url: a URL with a password in it; keep"),
    ("evaluation: evaluation.csv", "uri: s3://x", "21:5: spec.data: data has root and uri of root, uri, dvc and lfs"),
    ("    target: left\n", "", "21:5: spec.data: data.target is missing: name the column of the label"),
    ('cpu: "2"', "cpu: two", "31:20: spec.resources.cpu: is 'two'; allowed: a Kubernetes quantity such as \"500m\""),
    ("gpu: 0", "gpu: 0.5", "31:43: spec.resources.gpu: must be a whole number; got 0.5"),
    ("gpu: 0", "gpu: -1", "31:43: spec.resources.gpu: must be at least 0; got -1"),
    ("runtime: kubernetes", "runtime: k8s", "30:12: spec.runtime: is 'k8s'; allowed: local, kubernetes"),
    ("${NAMESPACE:-ml}", "${NAMESPACE}", "33:16: spec.kubernetes.namespace: NAMESPACE is not set in the environment"),
    ("${NAMESPACE:-ml}", "${NAME SPACE}", "33:16: spec.kubernetes.namespace: '${NAME SPACE}' cannot be expanded; al"),
    (
        "    namespace: $",
        "    namespac: $",
        "33:5: spec.kubernetes.namespac: is not a known name. Did you mean 'namespace'? Known nam",
    ),
    ("priority_class: batch", "priority_class: [x]", "34:21: spec.kubernetes.priority_class: must be text; got a list"),
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
    ("- onDataChange: true", "- onCommit: true", "41:7: spec.triggers[2]: onCommit is in triggers[1] already; allowe"),
    ("- onDataChange: true", "- cron: '@daily'", "41:7: spec.triggers[2].timezone: another cron has Europe/Berlin; a"),
    ("- onDataChange: true", "- onDrift: true", "42:7: spec.triggers[3]: the same trigger is in triggers[2] already"),
    (
        "poll: 2m",
        "poll: 2",
        "40:40: spec.triggers[1].onCommit.poll: 2 has no unit; allowed: a whole number and s, m, h or d",
    ),
    ("poll: 2m", "poll: 0s", "40:40: spec.triggers[1].onCommit.poll: '0s' is no time at all; allowed: more than zero"),
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
    ("default: 0.001", "default: fast", "46:15: spec.triggers[5].manual.params.lr: 'fast' is not of type number"),
    ("default: 0.001", "default: -1", "46:15: spec.triggers[5].manual.params.lr: default -1 is below minimum 0"),
    (
        "    - name: deep",
        "    - name: small",
        "49:13: spec.candidates[1].name: 'small' is here twice; each has its own",
    ),
    ("  select: {metric: f1}\n", "", "48:5: spec.candidates: there is no select; say by which metric the best is"),
    ("{metric: f1}", "{metric: hits}", "52:20: spec.select.metric: whether more or less of 'hits' is better is not kn"),
    (
        "- name: lint",
        "- name: deploy",
        "56:13: spec.stages[1].name: 'deploy' is not available in this version; take it",
    ),
    (
        "- name: lint",
        "- name: select",
        "56:13: spec.stages[1].name: 'select' is a task that is filled in; call the step",
    ),
    (
        "- name: lint",
        "- name: train_deep",
        "56:13: spec.stages[1].name: 'train_deep' is a task that is filled in; call",
    ),
    (
        "- name: lint",
        "- name: build",
        "56:13: spec.stages[1].name: 'build' is the name of stages[0] too; each stage is",
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
        "needs: [build]",
        "needs: [biuld]",
        "58:15: spec.stages[1].needs[0]: there is no stage 'biuld'. Did you mean 'build'? Known n",
    ),
    ("needs: [build]", "needs: [gate]", "58:14: spec.stages[1].needs: the stages wait for each other: "),
    ("needs: [build]", "needs: [lint]", "58:14: spec.stages[1].needs: the stages wait for each other: lint needs lint"),
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
        "f1: 0.8",
        "hits: 3",
        "63:32: spec.stages[3].metricsThreshold.hits: whether more or less of 'hits' is better is not know",
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
        "  env:\n",
        "  secretEnv: {OMP_NUM_THREADS: a.login}\n  env:\n",
        "35:32: spec.secretEnv.OMP_NUM_THREADS: OMP_NUM_THREADS is in env too; name each variable in one of them",
    ),
    (
        "      needs: [build]",
        "      secretEnv: {OMP_NUM_THREADS: a.login}",
        "56:7: spec.stages[1]: OMP_NUM_THREADS is both in env and in secretEnv; name it in one of them",
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
    ("delay: 30s", "delay: 30m", "67:12: spec.retries: maxDelay 5m is shorter than delay 30m"),
    (
        "on: [failure",
        "on: [fail",
        "70:13: spec.notifications[0].on[0]: must be one of failure, success, gateRejected; got '",
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


def test_what_an_overlay_hides_must_be_right_too(write: Write) -> None:
    found = problems(write("churn.yaml", changed(CHURN, '"0 2 * * 1-5"', "often")), "dev")
    assert found[0].startswith("churn.yaml:38:13: spec.triggers[0].cron: 'often' has 1 fields")


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
            "fraud.yaml:16:18: spec.stages[1].metricsThreshold.acuracy: whether more or less of 'acuracy' is better is "
            "not known; did you mean 'accuracy'? known metrics: ",
        ),
        (
            "accuracy: 0.92",
            "accuracy: 92",
            "fraud.yaml:16:19: spec.stages[1].metricsThreshold.accuracy: no model reaches accuracy >= 92, because "
            "accuracy lies between 0 and 1; for 92 % write 0.92",
        ),
        (
            "    - name: evaluate\n",
            "    - name: gate\n      thresholds: [f1 > 1]\n    - name: evaluate\n",
            "fraud.yaml:15:20: spec.stages[1].thresholds[0]: no model reaches f1 > 1, because f1 lies between 0 and 1",
        ),
        (
            "https://github.com/team/ml-fraud-v3",
            "github.com/team/ml-fraud-v3",
            "fraud.yaml:6:15: spec.sourceCode.url: folder github.com/team/ml-fraud-v3 does not exist beside "
            "fraud.yaml; name a folder or a Git URL, for example https://github.com/team/ml-fraud-v3",
        ),
        ("accuracy: 0.92\n        latencyMs: 150", "{}", "fraud.yaml:12:5: spec.stages: no threshold says what a good"),
        ("ml-fraud-v3", "ml-fraud-v3\n  select: {metric: f1}", "fraud.yaml:7:11: spec.select: there are no candidates"),
        (
            "    - onCommit: true",
            "    - onDataChange: true",
            "fraud.yaml:9:21: spec.triggers[0].onDataChange: there is no",
        ),
        ("ml-fraud-v3", "x\n  catchup: yes", "fraud.yaml:7:12: spec.catchup: yes means different things"),
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
    assert "would run in a pod, which cannot see the folder code; put the code into Git" in found
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
    text = changed(FRAUD, "https://github.com/team/ml-fraud-v3", f"{{url: https://github.com/t/m, ref: {'a1' * 20}}}")
    assert "sourceCode.ref is one commit, so nothing new would ever come" in problems(write("f.yaml", text))[0]


class TestProd:
    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            (
                'sourceCode: {tags: "v*"}',
                "image: x",
                "12:10: spec.sourceCode.ref: is 'main'; allowed in prod: a release",
            ),
            ("  env:\n", "  env:\n    DB_PASSWORD: hunter2\n", "36:18: spec.env.DB_PASSWORD: looks like a credential"),
            ("    seed: 7", "    apiKey: hunter2\n    seed: 7", "19:13: spec.config.apiKey: looks like a credential"),
            ('"--epochs", "3"', '"--token=hunter2"', "16:15: spec.arguments[0]: looks like a credential"),
            ("lr: 1e-3", f"note: ghp_{'a1' * 18}", "18:22: spec.config.training.note: looks like a credential"),
        ],
    )
    def test_refuses_branches_and_plaintext_secrets_and_repeats_no_secret(
        self, write: Write, old: str, new: str, problem: str
    ) -> None:
        path = write("churn.yaml", changed(CHURN, old, new))
        found = problems(path, "prod")
        assert any(each.startswith(f"churn.yaml:{problem}") for each in found), found
        assert "hunter2" not in "".join(found)

    @pytest.mark.parametrize("ref", ["v1.2.0", "1.0", "refs/tags/spring", "v2.0.0-rc.1"])
    def test_takes_a_release_tag_by_name(self, write: Write, ref: str) -> None:
        path = write("churn.yaml", changed(CHURN, '{tags: "v*"}', f"{{ref: {ref!r}}}"))
        source = load_pipeline_file(path, "prod", variables={}).pipeline.spec.source_code
        assert (source.ref, source.tags) == (ref, None)

    def test_refuses_a_folder(self, write: Write) -> None:
        path = write("f.yaml", changed(FRAUD, "https://github.com/team/ml-fraud-v3", "src"))
        write("src/train.py", "")
        assert "f.yaml:6:15: spec.sourceCode: is a folder; allowed in prod: a release tag" in "".join(
            problems(path, "prod")
        )

    def test_words_of_a_tokenizer_are_no_secrets(self, write: Write) -> None:
        path = write("churn.yaml", changed(CHURN, "seed: 7", "pad_token: <pad>\n    max_tokens: '512'\n    seed: 7"))
        assert load_pipeline_file(path, "prod", variables={}).config is not None


class TestEnvironments:
    def test_an_overlay_merges_maps_and_replaces_lists(self) -> None:
        dev, prod = (load_pipeline_file(FILES / "churn.yaml", name, variables={}) for name in ("dev", "prod"))
        assert (dev.pipeline.spec.triggers, len(prod.pipeline.spec.triggers)) == ((), 6)
        assert prod.config == {"training": {"lr": 0.001, "depth": 6}, "seed": 11}
        assert prod.pipeline.spec.kubernetes == {"namespace": "ml-prod", "priority_class": "batch"}
        assert (prod.pipeline.spec.source_code.tags, prod.pipeline.spec.source_code.ref) == ("v*", None)
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
        with pytest.raises(InvalidArgumentError, match="environment is 'staging'; allowed: dev, test, prod"):
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
            "defaults.yaml:3:1: kind: is nothing that has a default; allowed: metadata, spec",
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
            ("conf/a.yaml", "- a\n", "f.yaml:7:11: spec.config: conf/a.yaml holds a list; allowed: a mapping"),
            ("conf/b.yaml", "a: 1\n", "f.yaml:7:11: spec.config: a.yaml cannot be read: No such file or directory"),
        ],
    )
    def test_trouble_with_them_is_named(self, write: Write, name: str, text: str, problem: str) -> None:
        write(name, text)
        assert problems(write("f.yaml", self.TEXT))[0].startswith(problem)

    def test_json_is_read_as_json(self, write: Write) -> None:
        write("conf/a.json", '{\n\t"lr": 0.1}')
        assert load_pipeline_file(write("f.yaml", self.TEXT.replace("a.yaml", "a.json"))).config == {"lr": 0.1}
        write("conf/a.json", "[" * 100_000)
        assert "a.json cannot be read" in problems(write("f.yaml", self.TEXT.replace("a.yaml", "a.json")))[0]


class TestScripts:
    TEXT = changed(changed(FRAUD, "https://github.com/team/ml-fraud-v3", "src"), "    - onCommit: true\n", "")

    def test_of_a_folder_must_exist(self, write: Write) -> None:
        path = write("pipelines/f.yaml", self.TEXT)
        assert problems(path) == [
            "f.yaml:6:15: spec.sourceCode.url: folder src does not exist beside f.yaml; name a folder or a Git URL"
        ]
        write("pipelines/src/other.py", "")
        assert problems(path) == [
            "f.yaml:7:19: spec.trainingScript: train.py is not in src; name a script of the source"
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
        assert found == [
            "f.yaml:7:19: spec.trainingScript: train.py leads out of src; allowed: a script inside the source"
        ]


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
            "a.yaml:4:9: metadata.name: 'fraud-detection-pipeline' is the name of b/c.yaml too; each pipeline has a "
            "name of its own",
            "d.yaml",
            "b/c.yaml:4:9: metadata.name: 'fraud-detection-pipeline' is the name of a.yaml too; each pipeline has a "
            "name of its own",
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
        assert told[0] == "a.yaml:1:1: a.yaml leads out of in/; not followed"
        assert told[1] == "b.yaml"
        assert told[2].startswith("loop.yaml:1:1: loop.yaml cannot be read")
        assert told[3] == "more:1:1: more leads out of in/; not followed"

    def test_what_is_no_file_is_not_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.yaml")
        (tmp_path / "b.yaml").mkdir()
        (broken,) = load_pipeline_folder(tmp_path)
        assert isinstance(broken, BrokenPipeline)
        assert str(broken.error) == "a.yaml:1:1: a.yaml is no file; allowed: a YAML file"

    def test_a_folder_that_is_none_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgumentError, match="does not exist; name the folder"):
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
