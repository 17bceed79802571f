"""The plans of the pipelines in tests/pipelines as ``airflow-mcp plan`` writes them, so that every change is seen.

To take over a change that is meant: ``WRITE_PLANS=1 pytest tests/unit/cli/test_plan_texts.py``.
"""

from __future__ import annotations

import os

import pytest

from airflow_mcp.cli import main
from tests.support.paths import PIPELINES


@pytest.mark.parametrize("environment", ["dev", "prod"])
@pytest.mark.parametrize("name", [path.stem for path in sorted(PIPELINES.glob("*.yaml"))])
def test_the_plan_is_the_stored_one(
    name: str, environment: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("DATA_ROOT", "TAG", "NAMESPACE"):
        monkeypatch.delenv(variable, raising=False)
    assert main(["plan", str(PIPELINES / f"{name}.yaml"), "--env", environment]) == 0
    stored = PIPELINES / "plans" / f"{name}.{environment}.txt"
    if os.environ.get("WRITE_PLANS"):
        stored.write_text(capsys.readouterr().out, encoding="utf-8")
    else:
        assert capsys.readouterr().out == stored.read_text(encoding="utf-8")
