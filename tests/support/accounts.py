"""Stands for Airflow's authentication where the application runs in the test's process: the token is the name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fastapi import HTTPException, Request

KNOWN = ("olga", "bob", "eve", "ina")


async def authenticate(request: Request) -> Any:
    """Return the user of a request, by cookie or header.

    :raises HTTPException: when nobody known has sent it.
    """
    name = request.cookies.get("_token") or request.headers.get("authorization", "").removeprefix("Bearer ")
    if name not in KNOWN:
        raise HTTPException(401, "Not authenticated")
    return SimpleNamespace(get_name=lambda: name)
