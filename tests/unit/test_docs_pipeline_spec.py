"""docs/pipeline-spec.md is held to the models: every section, field, type, default and meaning."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mcp.cli.schema import schema
from airflow_mcp.core.pipeline.plan.rules import FILL_IN_RULES
from airflow_mcp.dag_rendering.loader import load_pipeline_file
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "pipeline-spec.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
SCHEMA = schema()
WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": ""}


def sections() -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every mapping that a file may hold, with its schema."""
    yield "ModelPipeline", SCHEMA
    for name, definition in SCHEMA["$defs"].items():
        if "properties" in definition and name != "Config":  # Config is written in its short forms only
            yield name, definition


def type_of(field: dict[str, Any]) -> str:
    """Say in words what a field holds."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if "properties" in SCHEMA["$defs"][name] else type_of(SCHEMA["$defs"][name])
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " or ".join(dict.fromkeys(filter(None, map(type_of, field[key]))))
    if field.get("type") == "array":
        return f"list of {type_of(field['items'])}"
    if field.get("type") == "object":
        values = next(iter(field.get("patternProperties", {}).values()), field.get("additionalProperties"))
        return f"mapping of names to {type_of(values) or 'values'}" if isinstance(values, dict) else "mapping"
    return WORDS.get(field.get("type", ""), "any value") + (" (expandable)" if field.get("expandable") else "")


def rows(definition: dict[str, Any]) -> Iterator[str]:
    """Write the table of a mapping as the page must have it."""
    for name, field in definition["properties"].items():
        if name in definition.get("required", ()):
            default = "required"
        else:
            value = field.get("default")
            default = "none" if value in (None, [], {}) else f"`{json.dumps(value)}`"
            default = "see there" if isinstance(value, dict) and value else default
        meaning = field["description"].replace("|", "\\|").replace("<", "&lt;")
        yield f"| `{name}` | {type_of(field)} | {default} | {meaning} |"


@pytest.mark.parametrize(("name", "definition"), list(sections()), ids=[name for name, _ in sections()])
def test_every_field_has_its_row_with_type_default_and_meaning(name: str, definition: dict[str, Any]) -> None:
    section = re.search(rf"^#+ {name}\n(.*?)(?=^#|\Z)", PAGE, re.M | re.S)
    assert section is not None, f"{name} has no section"
    assert [line for line in section[1].splitlines() if line.startswith("| `")] == list(rows(definition))


def test_every_field_of_the_models_is_explained() -> None:
    assert [
        f"{name}.{field}"
        for name, definition in sections()
        for field, what in definition["properties"].items()
        if not what.get("description")
    ] == []


def test_the_rules_of_filling_in_are_stated_in_the_words_of_the_plan() -> None:
    assert [rule for rule in FILL_IN_RULES.values() if rule not in " ".join(GUIDE.split())] == []


def test_the_files_on_the_pages_are_valid(tmp_path: Path) -> None:
    blocks = [block for block in re.findall(r"^```yaml\n(.*?)^```$", GUIDE + PAGE, re.M | re.S) if "kind:" in block]
    assert blocks
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block, encoding="utf-8")
        assert load_pipeline_file(path, variables={}).pipeline.metadata.name
