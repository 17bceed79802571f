"""The plugin that Airflow loads in every process, also in each task: it imports nothing before a request comes."""

from __future__ import annotations

import importlib
from typing import Any

from airflow.sdk.plugins_manager import AirflowPlugin

PREFIX = "/mcp"
"""Path below Airflow's address; not configurable, because links in records name it."""


class LazyApp:
    """An ASGI application that is imported at its first request.

    Airflow calls no startup function behind it, so the application starts what it needs by itself.

    :param module: module with a function ``create_default_app``.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if self._app is None:
            self._app = importlib.import_module(self._module).create_default_app()
        await self._app(scope, receive, send)


class ModelPanelPlugin(AirflowPlugin):
    """Mounts the application, and adds the entry "Models" to Airflow's side bar."""

    name = "airflow_mcp"
    fastapi_apps = [  # noqa: RUF012
        # First the longer path: the first application whose path fits gets the request.
        {"app": LazyApp("airflow_mcp.publisher.app"), "url_prefix": f"{PREFIX}/api/v1", "name": "Publisher API"},
        {"app": LazyApp("airflow_mcp.plugins.app"), "url_prefix": PREFIX, "name": "Model Control Plane"},
    ]
    external_views = [  # noqa: RUF012
        {
            "name": "Models",
            "href": f"{PREFIX}/ui/",
            "destination": "nav",
            "url_route": "models",
            "nav_top_level": True,
            "icon": f"{PREFIX}/static/models.svg",
            "icon_dark_mode": f"{PREFIX}/static/models-dark.svg",
        }
    ]
