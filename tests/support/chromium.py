"""Chromium as the distribution packages it, driven by playwright; nothing is downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

_PLACES = ("/usr/lib/chromium/chromium", "/usr/lib/chromium-browser/chromium-browser")
"""The program itself: the script in ``/usr/bin`` reads settings of the machine."""
TOKEN_COOKIE = "_token"


def find_chromium() -> str | None:
    """Return the path of the browser; None when it is not installed."""
    known = [place for place in _PLACES if Path(place).is_file()]
    return known[0] if known else shutil.which("chromium") or shutil.which("google-chrome")


@contextmanager
def browser() -> Iterator[Browser]:
    """Start the browser for a ``with`` block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


def signed_in(browser: Browser, url: str, token: str, **options: Any) -> BrowserContext:
    """Return a window of somebody who is logged in to Airflow.

    :param url: address of Airflow.
    :param token: their token.
    :param options: of ``new_context``, such as ``viewport`` and ``color_scheme``.
    """
    context = browser.new_context(**options)
    cookie = {"name": TOKEN_COOKIE, "value": token, "domain": str(urlsplit(url).hostname), "path": "/"}
    context.add_cookies([cookie])  # type: ignore[list-item]
    return context
