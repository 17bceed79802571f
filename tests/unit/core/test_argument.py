"""Arguments: one form for every wrong value, and every unknown name with the one that was probably meant."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from airflow_mcp.core.argument import read_argument, read_list, sentences, version_number
from airflow_mcp.core.document import Document
from airflow_mcp.exceptions import InvalidArgumentError


class Inner(Document):
    min_rows: Annotated[int, Field(ge=1)] = 1
    share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1


class Outer(Document):
    name: Annotated[str, Field(min_length=1)]
    mode: Literal["enforce", "warn"] = "enforce"
    rules: tuple[Inner, ...] = ()
    columns: dict[str, Inner] = Field(default_factory=dict)
    schema_: str = Field(default="", alias="schema")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "outer.name is missing"),
        ({"name": ""}, "outer.name must be text that is not empty; got ''"),
        ({"name": 3}, "outer.name must be text; got 3. Write '3' in quotes"),
        ({"name": "a", "mode": "wran"}, "outer.mode must be one of enforce, warn; got 'wran'. Did you mean 'warn'?"),
        ({"name": "a", "rules": [{"min_rows": 0}]}, "outer.rules[0].min_rows must be at least 1; got 0"),
        ({"name": "a", "rules": [{"share": 0.5}]}, "outer.rules[0].share must be less than 0.5; got 0.5"),
        (
            {"name": "a", "rules": [{}, {"minrows": 2}]},
            "outer.rules[1].minrows is not a known name. Did you mean 'min_rows'? Known names: min_rows, share",
        ),
        (
            {"name": "a", "columns": {"age": {"shares": 1}}},
            "outer.columns.age.shares is not a known name. Did you mean 'share'? Known names: min_rows, share",
        ),
        (
            {"name": "a", "x": 1},
            "outer.x is not a known name. Known names: columns, mode, name, rules, schema",
        ),
        ("s3cret", "outer must be a mapping; got 's3cret'"),
        ({"name": ["s3cret"]}, "outer.name must be text; got a list"),
    ],
)
def test_a_wrong_value_is_described_in_one_form(value: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_argument(Outer, "outer", value)
    assert str(caught.value) == message


def test_every_problem_of_every_item_is_listed() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_list(Inner, "rules", [{"min_rows": 0, "share": 0}, {}, {"min_rows": "x"}])
    assert str(caught.value) == (
        "rules[0].min_rows must be at least 1; got 0. rules[0].share must be more than 0; got 0. "
        "rules[2].min_rows must be a whole number; got 'x'"
    )


def test_a_question_gets_no_period() -> None:
    assert sentences("a is missing", "", "Did you mean 'b'?", "Nothing was started") == (
        "a is missing. Did you mean 'b'? Nothing was started"
    )


@pytest.mark.parametrize("value", [None, "", "None", "0", "01", "1.0", True, "latest", "none"])
def test_a_missing_version_is_never_taken_for_none(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="version must be a version number; got "):
        version_number("version", value)


def test_none_stands_for_no_version_only_where_it_may() -> None:
    assert version_number("version", "none", none_allowed=True) == "none"
    assert (version_number("version", 7), version_number("version", "7")) == ("7", "7")
