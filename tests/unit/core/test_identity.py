"""Names for work: equal for equal inputs, different for any difference."""

from __future__ import annotations

import math
import random
from dataclasses import fields, replace
from typing import Any

import pytest

from airflow_mcp.core.identity import TaskKey, WorkloadInputs, canonical_json, content_hash, fingerprint, identity

TASK = TaskKey("dag", "run", "task")
INPUTS = WorkloadInputs(("python", "train.py"), "c0ffee", "sha256:1", "sha256:2", "sha256:3", "image:1")


def test_the_order_of_keys_does_not_matter() -> None:
    assert canonical_json({"b": 1, "a": {"d": 2, "c": 3}}) == '{"a":{"c":3,"d":2},"b":1}'
    values = {f"k{number}": number for number in range(20)}
    keys = list(values)
    for seed in range(20):
        random.Random(seed).shuffle(keys)
        assert fingerprint({key: values[key] for key in keys}) == fingerprint(values)


@pytest.mark.parametrize("value", [math.nan, math.inf, {1}, b"x"])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        fingerprint(value)


def test_values_that_look_alike_have_different_fingerprints() -> None:
    alike: list[Any] = [
        1,
        "1",
        1.5,
        "1.5",
        True,
        "true",
        None,
        "null",
        [],
        {},
        "",
        [1],
        ["1"],
        [[1]],
        {"1": 1},
        "é",
        "e\u0301",
    ]
    assert len({fingerprint(value) for value in alike}) == len(alike)


def test_names_never_change_between_releases() -> None:
    """These values are stored in users' MLflow runs: a change would train everything again."""
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert content_hash(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert (
        identity(TASK, {"x": 1})
        == fingerprint(
            {
                "task": {"dag_id": "dag", "dag_run_id": "run", "task_id": "task", "map_index": -1},
                "inputs": {"x": 1},
            }
        )[:32]
    )


@pytest.mark.parametrize("name", [field.name for field in fields(WorkloadInputs)])
def test_every_input_of_a_workload_counts(name: str) -> None:
    changed = replace(INPUTS, **{name: ("other",) if name == "command" else "other"})  # type: ignore[arg-type]
    assert changed.fingerprint != INPUTS.fingerprint
    assert replace(INPUTS).fingerprint == INPUTS.fingerprint


def test_an_input_does_not_count_as_another() -> None:
    names = [field.name for field in fields(WorkloadInputs) if field.name != "command"]
    prints = {WorkloadInputs((), **{name: "x"}).fingerprint for name in names}  # type: ignore[arg-type]
    assert len(prints) == len(names)
    assert WorkloadInputs(("a b",)).fingerprint != WorkloadInputs(("a", "b")).fingerprint


@pytest.mark.parametrize("changes", [{"dag_id": "x"}, {"dag_run_id": "x"}, {"task_id": "x"}, {"map_index": 0}])
def test_every_part_of_the_task_counts(changes: dict[str, Any]) -> None:
    assert identity(replace(TASK, **changes), {"x": 1}) != identity(TASK, {"x": 1})


def test_an_identity_is_half_a_hash() -> None:
    assert len(identity(TASK, {})) == 32
    assert set(identity(TASK, {})) <= set("0123456789abcdef")
    assert identity(TASK, {"x": 1}) != identity(TASK, {"x": 2})
