"""The plugin in processes that never answer a request, such as every task."""

from __future__ import annotations

import subprocess
import sys
import tomllib

from airflow_mcp.plugins.model_panel import PREFIX, ModelPanelPlugin
from tests.support.paths import ROOT

COUNT = """
import sys
import airflow.sdk.plugins_manager
before = set(sys.modules)
import airflow_mcp.plugins.model_panel
print(*sorted(set(sys.modules) - before))
"""


def test_a_task_imports_nothing_for_the_page_but_the_plugin_itself() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = set(done.stdout.splitlines()[-1].split()) - {"airflow_mcp"}
    assert imported == {"airflow_mcp.plugins", "airflow_mcp.plugins.model_panel"}


def test_airflow_finds_the_plugin_by_its_entry_point_only() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = project["entry-points"]["airflow.plugins"]["airflow_mcp"]
    assert named == f"{ModelPanelPlugin.__module__}:{ModelPanelPlugin.__name__}"
    (view,), apps = ModelPanelPlugin.external_views, ModelPanelPlugin.fastapi_apps
    # The first whose path fits gets the request, so the longer path comes first.
    assert [app["url_prefix"] for app in apps] == [f"{PREFIX}/api/v1", PREFIX]
    assert view["href"] == f"{PREFIX}/ui/"
