"""One value has one name, whatever type, file or block it was read from, and one odd column leaves the others alone."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.drift.result import ColumnResult, DriftResult
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.drift.category_names import category_names
from airflow_mcp.work.drift.column_reading import ProfileOptions
from airflow_mcp.work.drift.dataset_comparison import compare_datasets
from airflow_mcp.work.drift.profiles import profile_dataset
from airflow_mcp.work.drift.row_sampling import sample_table
from airflow_mcp.work.reading import csv_and_jsonl

NAN = math.nan


def compared(reference: Path, current: Path, **policy: Any) -> DriftResult:
    sides = [[DatasetPin(uri=str(path))] for path in (reference, current)]
    return compare_datasets(sides[0], sides[1], ComparisonPolicy.model_validate(policy)).result


def of(result: DriftResult, name: str) -> ColumnResult:
    return next(column for column in result.columns if column.column == name)


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    return text(path, "".join(json.dumps(row) + "\n" for row in rows))


def counts(path: Path, column: str, **options: Any) -> dict[str, int]:
    found = profile_dataset([DatasetPin(uri=str(path))], ProfileOptions(**options))
    categories = next(found.categories for found in found.columns if found.name == column)
    assert categories is not None
    return categories.counts


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([1, 1.0, "1", "1.0", Decimal("1.00"), Decimal(1)], {"1"}),
        ([0.1, Decimal("0.10"), Decimal("0.1")], {"0.1"}),
        ([1e22, Decimal("1E+22")], {"1" + "0" * 22}),
        ([1e-7, Decimal("0.0000001")], {"0.0000001"}),
        ([0, -0.0, Decimal("-0.00")], {"0"}),
        ([True, "true", "True", "TRUE"], {"True"}),
        ([-1.5, Decimal("-1.50")], {"-1.5"}),
        (["007"], {"007"}),
        (["1.10"], {"1.10"}),
        (["01.0"], {"01.0"}),
        (["nan"], {"nan"}),
    ],
)
def test_equal_values_of_different_types_have_one_name(values: list[Any], names: set[str]) -> None:
    assert set(category_names(values)) == names


@pytest.mark.parametrize("block", [16 << 20, 64])
@pytest.mark.parametrize("files", [1, 2, 7])
def test_declared_codes_have_their_spelling_whatever_files_and_blocks_they_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, block: int
) -> None:
    monkeypatch.setattr(csv_and_jsonl.csv_blocks, "__defaults__", (block,))
    codes = sorted("V45" if row % 50 == 7 else ("0412", "7", "007", "7.0")[row % 4] for row in range(400))
    (tmp_path / "codes").mkdir()
    for number, part in enumerate(np.array_split(np.array(codes), files)):
        text(tmp_path / "codes" / f"{number}.csv", "code\n" + "\n".join(part) + "\n")
    expected = {"0412": 100, "007": 100, "7": 192, "V45": 8}
    assert counts(tmp_path / "codes", "code", categorical_columns=["code"]) == expected


@pytest.mark.parametrize("block", [16 << 20, 64])
def test_an_undeclared_column_of_csv_is_text_when_one_value_is_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(csv_and_jsonl.csv_blocks, "__defaults__", (block,))
    path = text(
        tmp_path / "a.csv", "n,c\n" + "".join(f"{row},{('0412', '7')[row % 2]}\n" for row in range(200)) + "0,V45\n"
    )
    assert counts(path, "c") == {"0412": 100, "7": 100, "V45": 1}
    flags = text(tmp_path / "b.csv", "c\n" + "true\nfalse\n" * 300 + "maybe\n")
    assert counts(flags, "c") == {"True": 300, "False": 300, "maybe": 1}


def test_one_word_that_is_no_flag_is_one_new_category(tmp_path: Path) -> None:
    flags = "c\n" + "true\nfalse\n" * 300
    result = compared(text(tmp_path / "a.csv", flags), text(tmp_path / "b.csv", flags + "maybe\n"))
    (finding,) = result.findings
    assert (finding.kind, finding.current, finding.exceeded) == ("new_categories", 1 / 601, False)


@pytest.mark.parametrize("precision", ["exact", "profile"])
def test_types_of_one_value_are_no_drift(tmp_path: Path, precision: str) -> None:
    codes = [(1, 2, 10)[row % 3] for row in range(300)]
    tenths = [Decimal(code) / 10 for code in codes]
    floats = [float(tenth) for tenth in tenths]
    made = [
        parquet(tmp_path / "a.parquet", c=pa.array(codes, pa.int64()), d=pa.array(tenths, pa.decimal128(9, 1))),
        parquet(tmp_path / "b.parquet", c=pa.array(codes, pa.float64()), d=pa.array(tenths, pa.decimal128(18, 4))),
        parquet(
            tmp_path / "c.parquet", c=pa.array(map(str, codes)), d=pa.array(list(map(float, tenths)), pa.float32())
        ),
        parquet(tmp_path / "d.parquet", c=pa.array(codes, pa.decimal128(9, 2)), d=pa.array(floats)),
        parquet(
            tmp_path / "e.parquet",
            c=pa.array(map(str, codes)).dictionary_encode(),
            d=pa.array(tenths, pa.decimal128(9, 1)).dictionary_encode(),
        ),
        text(tmp_path / "f.csv", "c,d\n" + "".join(f"{float(c)},{d}\n" for c, d in zip(codes, tenths, strict=True))),
        lines(tmp_path / "g.jsonl", [{"c": c, "d": float(d)} for c, d in zip(codes, tenths, strict=True)]),
        lines(tmp_path / "h.jsonl", [{"c": str(c), "d": float(d)} for c, d in zip(codes, tenths, strict=True)]),
    ]
    for current in made[1:]:
        result = compared(made[0], current, precision=precision, categorical_columns=["c"])
        assert {column.column: column.drifted for column in result.columns} == {"c": False, "d": False}, current
        declared = compared(made[0], current, precision=precision, categorical_columns=["c", "d"])
        assert {column.column: column.score for column in declared.columns} == {"c": 1.0, "d": 1.0}, current
        assert declared.findings == ()


def test_times_and_flags_that_are_declared_have_one_name_in_every_format(tmp_path: Path) -> None:
    days = pd.date_range("2026-01-01", periods=4).repeat(30)
    frame = pd.DataFrame({"day": days, "at": days + pd.Timedelta("90min"), "flag": [True, False] * 60})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "b.parquet", index=False)
    frame.assign(day=frame["day"].dt.date).to_parquet(tmp_path / "c.parquet", index=False)
    lines(tmp_path / "d.jsonl", [{"day": f"{d:%Y-%m-%d}", "at": f"{a}", "flag": f} for d, a, f in frame.to_numpy()])
    for name in ("day", "at", "flag"):
        found = [counts(path, name, categorical_columns=["day", "at", "flag"]) for path in sorted(tmp_path.iterdir())]
        assert found == [found[0]] * 4
        assert set(found[0].values()) == {60 if name == "flag" else 30}


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("precision", ["exact", "profile"])
def test_nan_is_missing_and_infinite_is_left_out_in_declared_categories(
    tmp_path: Path, precision: str, dictionary: bool
) -> None:
    sides = [pa.array([1.0, 2.0, 3.0] * times + [NAN, math.inf] * ((500 - 3 * times) // 2)) for times in (150, 60)]
    made = [
        parquet(tmp_path / name, code=side.dictionary_encode() if dictionary else side)
        for name, side in zip(("a.parquet", "b.parquet"), sides, strict=True)
    ]
    code = of(compared(*made, precision=precision, categorical_columns=["code"]), "code")
    assert (code.score, code.drifted) == (1.0, False)
    assert code.current is not None
    assert (code.current.missing, code.current.infinite, code.current.distinct) == (160, 160, 3)


@pytest.mark.parametrize("precision", ["exact", "profile"])
def test_a_dictionary_declares_categories_whatever_its_values_are(tmp_path: Path, precision: str) -> None:
    codes = pd.Series([row % 30 for row in range(300)])
    ids = pd.Series([f"id {row}" for row in range(300)])
    frame = pd.DataFrame({"code": codes, "id": ids})
    frame.astype("category").to_feather(tmp_path / "a.feather")  # Parquet keeps dictionaries of text only
    frame.to_parquet(tmp_path / "b.parquet")
    (tmp_path / "both").mkdir()
    frame.iloc[:150].to_parquet(tmp_path / "both" / "a.parquet")
    frame.iloc[150:].reset_index(drop=True).astype("category").to_feather(tmp_path / "both" / "b.feather")
    expected = dict.fromkeys(("code", "id"), ("categorical", "chisquare", 1.0))
    for current in ("a.feather", "b.parquet", "both"):
        result = compared(tmp_path / "a.feather", tmp_path / current, precision=precision)
        assert {column.column: (column.type, column.method, column.score) for column in result.columns} == expected
    result = compared(tmp_path / "b.parquet", tmp_path / "b.parquet", precision=precision)
    assert {column.column: column.drifted for column in result.columns} == {"code": False, "id": None}


def test_missing_values_within_a_dictionary_are_missing(tmp_path: Path) -> None:
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, 1]), pa.array(["a", None]))
    pyarrow.feather.write_feather(pa.table({"c": coded}), tmp_path / "a.feather")
    assert counts(tmp_path / "a.feather", "c") == {"a": 2}


def test_values_are_read_whatever_encoding_they_are_stored_in(tmp_path: Path) -> None:
    values = ["a", "b", None] * 40
    table = pa.table(
        {
            "view": pa.array(values, pa.string_view()),
            "large": pa.array(values, pa.large_string()),
            "runs": pa.RunEndEncodedArray.from_arrays(pa.array([40, 80, 120], pa.int32()), ["a", "b", None]),
            "views": pa.DictionaryArray.from_arrays(
                pa.array([0, 1, None] * 40), pa.array(["a", "b"], pa.string_view())
            ),
        }
    )
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    found = profile_dataset([DatasetPin(uri=str(tmp_path / "a.arrow"))])
    for column in found.columns:
        assert column.categories is not None
        assert (column.name, column.categories.counts, column.missing) == (column.name, {"a": 40, "b": 40}, 40)
        assert column.type == "string"


# --- one odd column and its neighbours --------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [16 << 20, 300])
def test_one_odd_value_retypes_its_column_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(csv_and_jsonl.json_tables, "__defaults__", (block,))
    rows = [
        {"when": f"2026-01-{row % 28 + 1:02}", "amount": row % 50, "big": 2**64 - 1, "text": "0412"}
        for row in range(400)
    ]
    odd = [row | {"amount": "n/a"} if number == 7 else row for number, row in enumerate(rows)]
    result = compared(lines(tmp_path / "a.jsonl", rows), lines(tmp_path / "b.jsonl", odd))
    assert [(found.kind, found.column) for found in result.findings] == [("retyped_column", "amount")]
    assert "times are not compared" in of(result, "when").note
    assert "values of several types in the current data: int64|string" in of(result, "amount").note
    assert of(result, "big").drifted is False
    assert of(result, "text").drifted is False


ODD_LINES = {
    "a large number beside a mixed column": '{"a":18446744073709551615,"m":1}\n{"a":1,"m":"x"}\n',
    "a number that no double has": '{"a":9007199254740993,"m":1}\n{"a":1.5,"m":"x"}\n',
    "a number beyond all doubles": '{"a":1' + "0" * 400 + ',"m":1}\n{"a":1,"m":"x"}\n',
    "a list of two kinds": '{"a":[1,"x"],"m":1}\n',
    "half a surrogate pair": '{"a":"\\ud83d","m":1}\n',
    "a key that occurs twice": '{"a":1,"a":2,"m":1}\n',
    "a structure that becomes a number": '{"a":{"b":1},"m":1}\n{"a":7,"m":1}\n',
    "no number": '{"a":NaN,"m":1}\n',
}


@pytest.mark.parametrize("content", ODD_LINES.values(), ids=ODD_LINES)
@pytest.mark.parametrize("ignored", [[], ["a"]])
def test_an_odd_column_of_json_lines_refuses_nothing(tmp_path: Path, content: str, ignored: list[str]) -> None:
    path = text(tmp_path / "x.jsonl", content * 100 + '{"m":1,"other":0.5}\n' * 200)
    result = compared(path, path, ignored_columns=ignored)
    assert of(result, "other").drifted is False
    assert ("a" in {column.column for column in result.columns}) == (not ignored)


def test_mixed_values_of_a_declared_column_are_counted_one_by_one(tmp_path: Path) -> None:
    values = [1, 1.0, "1", True, "true", 2**64 - 1, [1], None, "x"]
    path = lines(tmp_path / "a.jsonl", [{"c": value} for value in values if not isinstance(value, list)])
    found = counts(path, "c", categorical_columns=["c"])
    assert found == {"1": 3, "True": 2, "18446744073709551616": 1, "x": 1}


def test_a_column_that_cannot_be_read_is_unknown_and_its_neighbours_are_compared(tmp_path: Path) -> None:
    bad = pa.StringArray.from_buffers(200, pa.py_buffer(np.arange(201, dtype=np.int32)), pa.py_buffer(b"\xe9" * 200))
    path = parquet(tmp_path / "a.parquet", bad=bad, good=pa.array([1.5, 2.5] * 100))
    result = compared(path, path)
    assert "reference data: its values cannot be read: UnicodeDecodeError" in of(result, "bad").note
    assert of(result, "good").drifted is False
    latin = tmp_path / "b.csv"
    latin.write_bytes(b"name,n\n" + b"caf\xe9,1\nth\xe9,2\n" * 100)
    result = compared(latin, latin)
    assert "is not UTF-8; convert it, or ignore the column" in of(result, "name").note
    assert of(result, "n").drifted is False
    assert [column.column for column in compared(latin, latin, ignored_columns=["name"]).columns] == ["n"]


def test_a_repeated_name_is_refused_unless_it_is_ignored(tmp_path: Path) -> None:
    path = text(tmp_path / "a.csv", "x,a,a\n" + "1,2,3\n" * 100)
    with pytest.raises(DatasetError, match="more than one column named 'a'"):
        compared(path, path)
    assert [column.column for column in compared(path, path, ignored_columns=["a"]).columns] == ["x"]


# --- what the caller names, and what has no name ----------------------------------------------------------------------


def test_the_index_that_pandas_wrote_into_csv_is_a_feature_without_a_role(tmp_path: Path) -> None:
    frame = pd.DataFrame({"age": [30, 41, 52, 63] * 100, "size": np.linspace(0, 1, 400) % 0.1, "n": [1, 2] * 200})
    frame.iloc[:200].to_csv(tmp_path / "a.csv")
    frame.iloc[200:].to_csv(tmp_path / "b.csv")
    result = compared(tmp_path / "a.csv", tmp_path / "b.csv")
    assert {column.column: (column.role, column.drifted) for column in result.columns} == {
        "": ("feature", None),
        **dict.fromkeys(("age", "size", "n"), ("feature", False)),
    }
    assert "write it with index=False" in of(result, "").note
    assert result.verdict == "not_drifted"
    assert of(compared(tmp_path / "a.csv", tmp_path / "b.csv", columns=["", "age"]), "").drifted


@pytest.mark.parametrize("ending", ["parquet", "feather"])
def test_an_index_that_pandas_stored_is_no_column(tmp_path: Path, ending: str) -> None:
    frame = pd.DataFrame({"n": [1.5, 2.5] * 100, "day": range(200)}).set_index("day")
    for name, index in (("a", 0), ("b", 1000)):
        frame.index = pd.Index(frame.index + index, name="day")
        if ending == "parquet":
            frame.to_parquet(tmp_path / f"{name}.parquet")
        else:
            pyarrow.feather.write_feather(pa.Table.from_pandas(frame), tmp_path / f"{name}.feather")
    result = compared(tmp_path / f"a.{ending}", tmp_path / f"b.{ending}")
    assert [column.column for column in result.columns] == ["n"]


@pytest.mark.parametrize("kind", ["object", "category", "string[pyarrow]"])
@pytest.mark.parametrize("precision", ["exact", "profile"])
def test_a_model_that_is_now_always_wrong_has_drifted_whatever_type_its_labels_have(
    tmp_path: Path, precision: str, kind: str
) -> None:
    label = np.random.default_rng(0).choice(["yes", "no"], 1000)
    wrong = np.where(label == "yes", "no", "yes")
    for name, predicted in (("a", label), ("b", wrong)):
        pd.DataFrame({"p": predicted, "y": label}).astype(kind).to_parquet(tmp_path / f"{name}.parquet")
    result = compared(tmp_path / "a.parquet", tmp_path / "b.parquet", prediction="p", target="y", precision=precision)
    assert of(result, "(prediction correct)").drifted


@pytest.mark.parametrize(
    ("predicted", "label"),
    [
        (pa.array([1, 0, None]), pa.array(["1", "1", "1"])),
        (pa.array([True, False, None]), pa.array(["True", "true", "true"])),
        (pa.array([1.0, 0.0, NAN]), pa.array(["1", "1", "1"])),
        (pa.array([Decimal("1.0"), Decimal("0.0"), None]), pa.array(["1", "1", "1"]).dictionary_encode()),
    ],
)
def test_a_prediction_of_another_type_than_its_label_is_right_when_they_have_one_name(
    tmp_path: Path, predicted: pa.Array, label: pa.Array
) -> None:
    path = parquet(tmp_path / "a.parquet", p=predicted, y=label)
    assert counts(path, "(prediction correct)", prediction="p", target="y") == {"True": 1, "False": 1}


def test_declared_classes_are_right_or_wrong_and_not_near(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", p=[1, 2, 9], y=[1, 2, 3])
    options = {"prediction": "p", "target": "y", "categorical_columns": ["y"]}
    assert counts(path, "(prediction correct)", **options) == {"True": 2, "False": 1}
    assert "(prediction error)" not in {
        column.name for column in profile_dataset([DatasetPin(uri=str(path))], ProfileOptions(**options)).columns
    }


def test_labels_that_turn_out_to_be_text_derive_one_column_of_quality(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_and_jsonl.csv_blocks, "__defaults__", (32,))
    path = text(tmp_path / "a.csv", "p,y\n" + "1,1\n" * 100 + "none,2\n" * 50)
    found = profile_dataset([DatasetPin(uri=str(path))], ProfileOptions(prediction="p", target="y"))
    assert [column.name for column in found.columns] == ["p", "y", "(prediction correct)"]
    assert counts(path, "(prediction correct)", prediction="p", target="y") == {"True": 100, "False": 50}


def test_a_column_that_the_policy_declares_is_compared_although_a_profile_holds_it_as_text(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", city=[f"city {row % 90}" for row in range(120)])
    profile = profile_dataset([DatasetPin(uri=str(path))])
    assert profile.columns[0].kind == "text"
    policy = ComparisonPolicy(categorical_columns=("city",))
    (city,) = compare_datasets(profile, profile, policy).result.columns
    assert city.drifted is False


def test_rows_are_drawn_as_they_are_compared(tmp_path: Path) -> None:
    text(tmp_path / "a.csv", "c,n\n007,1\n7,2\n")
    text(tmp_path / "b.csv", "c,n\nV45,2.5\n")
    parquet(tmp_path / "c.parquet", c=[7], n=pa.array([Decimal("0.3")], pa.decimal128(9, 1)))
    drawn = sample_table([DatasetPin(uri=str(tmp_path))], {"c": "categorical", "n": "numerical"}, 10, 0)
    assert drawn.rows.to_pydict() == {"c": ["007", "7", "V45", "7"], "n": [1.0, 2.0, 2.5, 0.3]}
