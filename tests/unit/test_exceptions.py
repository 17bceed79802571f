"""The error tree: its two families, and that errors survive the way between processes."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from airflow_mcp import exceptions
from airflow_mcp.exceptions import (
    FailedError,
    MlflowError,
    MlflowNotFoundError,
    ModelControlPlaneError,
    PipelineSpecError,
    RefusedError,
    SpecProblem,
    WorkloadFailedError,
)

ERRORS = [
    kind
    for _, kind in inspect.getmembers(exceptions, inspect.isclass)
    if kind.__module__ == exceptions.__name__ and issubclass(kind, BaseException)
]


def make(kind: type[ModelControlPlaneError]) -> ModelControlPlaneError:
    if issubclass(kind, PipelineSpecError):
        return kind([SpecProblem("fraud.yaml", 3, 5, "spec.image", "what, why, what next")])
    return kind("what, why, what next", 3) if issubclass(kind, WorkloadFailedError) else kind("what, why, what next")


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_is_either_refused_or_failed(kind: type[ModelControlPlaneError]) -> None:
    assert issubclass(kind, ModelControlPlaneError)
    if kind is not ModelControlPlaneError:
        assert issubclass(kind, RefusedError) is not issubclass(kind, FailedError)
        assert issubclass(kind, ValueError) is issubclass(kind, RefusedError)
        assert issubclass(kind, RuntimeError) is issubclass(kind, FailedError)


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling(kind: type[ModelControlPlaneError], protocol: int) -> None:
    error = make(kind)
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is kind
    assert str(again) == str(error)
    assert str(again).endswith("what, why, what next")
    assert vars(again) == vars(error)


def test_an_answer_of_mlflow_keeps_its_status_and_code() -> None:
    error = MlflowNotFoundError("no such run", 404, "RESOURCE_DOES_NOT_EXIST")
    again = pickle.loads(pickle.dumps(error))
    assert (again.status, again.error_code) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert MlflowError("no answer").status is None


def test_a_failed_workload_keeps_its_exit_code_and_output() -> None:
    again = pickle.loads(pickle.dumps(WorkloadFailedError("killed", -9, ["a", "b"])))
    assert (again.exit_code, again.last_lines) == (-9, ("a", "b"))


def test_a_wrong_pipeline_file_lists_every_problem_with_its_place() -> None:
    problems = [SpecProblem("a.yaml", 3, 5, "spec.image", "is missing"), SpecProblem("a.yaml", 1, 1, "", "is empty")]
    assert str(PipelineSpecError(problems)) == "a.yaml:3:5: spec.image: is missing\na.yaml:1:1: is empty"


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    lines = re.findall(r"^ {4}([│├└─ ]*)(\w+Error)", exceptions.__doc__ or "", re.MULTILINE)
    documented = {name: len(lead) // 4 for lead, name in lines}
    ours = {kind: [base for base in kind.__mro__ if base in ERRORS] for kind in ERRORS}
    assert documented == {kind.__name__: len(line) - 1 for kind, line in ours.items()}
