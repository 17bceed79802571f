"""Every metric of the server is on one of its pages."""

from __future__ import annotations

import re

from tests.support.paths import DOCS, ROOT


def test_every_metric_is_documented() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "serving").glob("*.md"))
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "airflow_mcp" / "serving").glob("*.py"))
    names = set(re.findall(r'f"\{_?PREFIX\}_(\w+)"', code))
    assert len(names) > 20
    assert [name for name in sorted(names) if f"airflow_mcp_serving_{name}" not in pages] == []
