"""Folders of the checkout that tests read from."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PIPELINES = ROOT / "tests" / "pipelines"
"""ModelPipeline files, with the plans they must lead to."""
REPORTS = ROOT / "tests" / "reports"
"""Reports of real test and lint tools."""
