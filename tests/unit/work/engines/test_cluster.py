"""What is asked of a cluster before anything is read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from airflow_mcp.exceptions import EngineError, InvalidArgumentError
from airflow_mcp.work.engines import cluster
from airflow_mcp.work.engines.cluster import connected, failed


class Answering:
    """A cluster whose workers have other versions than this process."""

    shown = "Dask at tcp://scheduler:8786"

    def __init__(self, **changed: str | None) -> None:
        self.changed = changed

    def probe(self, versions: Callable[[], dict[str, str]]) -> dict[str, str]:
        found = {**versions(), **{name.replace("_", "-"): version for name, version in self.changed.items()}}
        return {name: version for name, version in found.items() if version is not None}


def connect(monkeypatch: pytest.MonkeyPatch, **changed: str | None) -> str:
    """Connect to a cluster whose workers have these versions; return its name in messages."""

    @contextlib.contextmanager
    def answer(engine: str, address: str) -> Iterator[Answering]:
        yield Answering(**changed)

    monkeypatch.setattr(cluster, "_connect", answer)
    monkeypatch.setattr(cluster, "_require_answer", lambda engine, address: None)
    with connected("dask", "scheduler:8786") as found:
        return found.shown


def test_workers_like_this_process_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect(monkeypatch) == Answering.shown


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"airflow_mcp": None}, r"cannot import airflow_mcp; it has Python 3\."),
        ({"airflow_mcp": "0.0.1"}, "has airflow-mcp 0.0.1 instead of"),
        ({"python": "3.9.1"}, "has python 3.9.1 instead of"),
        ({"pyarrow": "9.0.0"}, "has pyarrow 9.0.0 instead of"),
        ({"numpy": None}, "has numpy missing instead of"),
    ],
)
def test_workers_with_other_versions_are_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str | None], said: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=said) as refused:
        connect(monkeypatch, **changed)
    assert "spark.archives" in str(refused.value)
    assert "Nothing was read" in str(refused.value)


def test_a_token_is_not_in_the_error_of_an_engine() -> None:
    error = failed("Spark at sc://host:1", ValueError("bad URL sc://ann:pass@host:1/;user_id=ann;token=s3cret"))
    assert isinstance(error, EngineError)
    assert "s3cret" not in str(error)
    assert "pass@" not in str(error)
