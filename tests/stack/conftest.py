"""The stack of docker-compose.yaml, started for real; skipped where there is no Docker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.compose import ComposeStack, missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and skip them where they cannot run."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = missing() if ours else None
    for item in ours:
        item.add_marker(pytest.mark.stack)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def stack() -> Iterator[ComposeStack]:
    """The stack, healthy; nothing of it is left afterwards."""
    with ComposeStack(f"stack-test-{os.getpid()}") as stack:
        yield stack
