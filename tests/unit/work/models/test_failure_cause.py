"""Whose fault it is: requirements against what is installed, and errors of the machine against those of a model."""

from __future__ import annotations

import errno
import platform
from importlib import metadata
from pathlib import Path

import pytest
import requests

from airflow_mcp.work.models.failure_cause import (
    is_environment_failure,
    needs_unrecorded_code,
    required_libraries,
    unmet_requirements,
)
from airflow_mcp.work.run.process import peak_memory, present_memory

NUMPY = metadata.version("numpy")
OLD_NUMPY = f"numpy==0.1 is required, {NUMPY} is installed"


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ConnectionResetError(),
        TimeoutError(),
        requests.exceptions.ConnectionError("no route"),
        OSError(errno.ENOSPC, "No space left on device"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EROFS, "Read-only file system"),
        ImportError("libgomp.so.1: cannot open shared object file: No such file or directory"),
        RuntimeError("Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False"),
        ModuleNotFoundError("No module named 'nobody_has_it'", name="nobody_has_it"),
        ModuleNotFoundError("No module named 'nobody_has_it.part'", name="nobody_has_it.part"),
        caused(ValueError("could not be loaded"), MemoryError()),
    ],
    ids=str,
)
def test_errors_of_the_machine_the_network_and_the_image_are_not_the_models(error: BaseException) -> None:
    assert is_environment_failure(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("torn"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        ModuleNotFoundError("No module named 'json.gone'", name="json.gone"),
        ImportError("cannot import name 'gone' from 'json'"),
        AttributeError("gone"),
        RuntimeError("shapes do not fit"),
        caused(ValueError("outer"), KeyError("inner")),
        SystemExit(3),
    ],
    ids=str,
)
def test_errors_of_a_models_files_and_code_are_its_own(error: BaseException) -> None:
    assert not is_environment_failure(error)


def test_an_error_that_leads_back_to_itself_ends() -> None:
    error = ValueError("round")
    error.__context__ = caused(KeyError("and round"), error)
    assert not is_environment_failure(error)


def model(folder: Path, requirements: str, python: str | None = None) -> Path:
    (folder / "requirements.txt").write_text(requirements)
    version = f"    python_version: {python}\n" if python else ""
    (folder / "MLmodel").write_text(f"flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n{version}")
    return folder


@pytest.mark.parametrize(
    ("requirements", "unmet"),
    [
        ("", ()),
        (f"numpy=={NUMPY}\n", ()),
        ("numpy>=1\n# a comment\n\n", ()),
        ("numpy==0.1\n", (f"numpy==0.1 is required, {NUMPY} is installed",)),
        ("nobody-has-it>=1\n", ("nobody-has-it>=1 is required and not installed",)),
        ("nobody-has-it==1; python_version < '3'\n", ()),
        ("-r other.txt\n./a/path\nthing @ https://example.com/thing.whl\n--hash=sha256:00\n", ()),
        (f"numpy==0.1 \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n", (OLD_NUMPY,)),
        (f"numpy==0.1 --hash=sha256:{'a' * 64}  # via pandas\n", (OLD_NUMPY,)),
        ("numpy==0.1 --config-settings=a=b\n", (OLD_NUMPY,)),
        ("\ufeffnumpy==0.1\n", (OLD_NUMPY,)),
        ("-r requirements.txt\nnumpy==0.1\n", (OLD_NUMPY,)),
    ],
)
def test_requirements_are_compared_with_what_is_installed(
    tmp_path: Path, requirements: str, unmet: tuple[str, ...]
) -> None:
    assert unmet_requirements(model(tmp_path, requirements)) == unmet


def test_requirements_and_constraints_in_further_files_count(tmp_path: Path) -> None:
    (tmp_path / "base.txt").write_text("nobody-has-it==1\n")
    (tmp_path / "constraints.txt").write_text("numpy==0.1\nnobody-has-this==1\n")
    folder = model(tmp_path, "-r base.txt\n-c constraints.txt\nnumpy\n")
    assert unmet_requirements(folder) == ("nobody-has-it==1 is required and not installed", OLD_NUMPY)


def raised_by(code: str) -> BaseException:
    try:
        exec(code)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "code", ["from own_code import gone", "import own_code.gone", "pickle.loads(b'cown_code\\ngone\\n.')"]
)
def test_code_that_a_model_needs_and_does_not_record_is_not_its_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "own_code.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    error = raised_by(f"import pickle; {code}")
    folder = tmp_path / "model"
    folder.mkdir()
    assert needs_unrecorded_code(caused(ValueError("outer"), error), model(folder, "numpy\n"))
    (folder / "code" / "src").mkdir(parents=True)
    (folder / "code" / "src" / "own_code.py").touch()
    assert not needs_unrecorded_code(error, folder)


@pytest.mark.parametrize(
    "code",
    ["from numpy import gone", "import json.gone", "pickle.loads(b'c__main__\\ngone\\n.')", "numpy.gone", "int('a')"],
)
def test_recorded_libraries_and_a_models_own_mistakes_are_no_unrecorded_code(tmp_path: Path, code: str) -> None:
    error = raised_by(f"import numpy, pickle; {code}")
    assert not needs_unrecorded_code(error, model(tmp_path, "NumPy>=1\n"))


def test_another_python_is_another_surrounding_and_a_patch_release_is_not(tmp_path: Path) -> None:
    here = platform.python_version()
    assert unmet_requirements(model(tmp_path, "", f"{here.rpartition('.')[0]}.99")) == ()
    assert unmet_requirements(model(tmp_path, "", "3.4.1")) == (f"python 3.4.1 is required, {here} is installed",)


def test_a_model_that_records_nothing_or_rubbish_lacks_nothing(tmp_path: Path) -> None:
    assert unmet_requirements(tmp_path) == ()
    (tmp_path / "MLmodel").write_text("{")
    (tmp_path / "requirements.txt").write_bytes(b"\xff\xfe")
    assert unmet_requirements(tmp_path) == ()


def test_the_libraries_of_a_model_are_named(tmp_path: Path) -> None:
    assert required_libraries(model(tmp_path, "numpy==1\nmlflow[extras]>=3\n-e .\n")) == ("numpy", "mlflow")


def test_the_peak_of_memory_is_never_below_what_is_used_now() -> None:
    held = bytearray(50_000_000)
    present, peak = present_memory(), peak_memory()
    assert present is not None
    assert peak is not None
    assert peak >= present > len(held)
