from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import parse_document
from airflow_mcp.core.drift.policy import METHODS, ComparisonPolicy
from airflow_mcp.core.drift.profile import DataProfile, read_profile, write_profile
from airflow_mcp.core.drift.result import ColumnResult, DriftResult
from airflow_mcp.exceptions import DatasetError, InvalidArgumentError
from airflow_mcp.work.drift import dataset_comparison
from airflow_mcp.work.drift.column_reading import QUALITY_OF_LABELS, QUALITY_OF_NUMBERS, ProfileOptions
from airflow_mcp.work.drift.dataset_comparison import compare_datasets
from airflow_mcp.work.drift.profiles import Side, profile_dataset
from airflow_mcp.work.reading.dataset_batches import FileScan


def stored(folder: Path, name: str, data: pd.DataFrame, ending: str = "parquet") -> list[DatasetPin]:
    path = folder / f"{name}.{ending}"
    if ending == "parquet":
        data.to_parquet(path, index=False)
    else:
        data.to_csv(path, index=False)
    return [DatasetPin(uri=str(path))]


def profiled(pins: list[DatasetPin], **options: Any) -> DataProfile:
    """Profile data, and read the profile back as it would be stored."""
    return read_profile(write_profile(profile_dataset(pins, ProfileOptions(**options))), "stored")


def compared(reference: Side, current: Side, **policy: Any) -> DriftResult:
    result = compare_datasets(reference, current, ComparisonPolicy.model_validate(policy)).result
    assert parse_document(DriftResult, result.model_dump_json(by_alias=True), "stored") == result
    return result


def of(result: DriftResult, name: str) -> ColumnResult:
    return next(column for column in result.columns if column.column == name)


def frame(rows: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """Columns of every type; those named ``moved`` move by the shift."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "normal": random.normal(size=rows),
            "moved": random.normal(shift, 1, rows),
            "skewed": random.gamma(2, size=rows),
            "moved skewed": random.gamma(2, size=rows) * (1 + shift),
            "whole": random.poisson(40, rows),
            "level": random.integers(0, 4, rows),
            "ten": random.integers(0, 10, rows),
            "three": random.choice([0.5, 1.0, 2.0], rows),
            "label": random.choice(list("abcd"), rows),
            "moved label": random.choice(list("abc"), rows, p=[0.5 - shift / 7, 0.3, 0.2 + shift / 7]),
            "flag": random.random(rows) < 0.4,
            "holes": np.where(random.random(rows) < 0.1, np.nan, random.normal(size=rows)),
        }
    )


def preset(reference: pd.DataFrame, current: pd.DataFrame) -> dict[str, tuple[str, float, bool]]:
    """Evidently's DataDriftPreset as it comes: method, score and verdict of each column."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import Dataset, Report
        from evidently.legacy.tests.base_test import TestStatus
        from evidently.presets import DataDriftPreset

        data = [Dataset.from_pandas(side) for side in (current, reference)]
        snapshot = Report([DataDriftPreset()], include_tests=True).run(*data)
        found = {}
        for result in snapshot.metric_results.values():
            location = result.metric_value_location
            parameters = location.metric.params if location else {}
            if "column" in parameters:
                drifted = result.tests[0].status == TestStatus.FAIL
                found[parameters["column"]] = (parameters["method"], float(result.value), drifted)
    return found


DISPLAYED = {
    "wasserstein": "Wasserstein distance (normed)",
    "ks": "K-S p_value",
    "jensenshannon": "Jensen-Shannon distance",
    "chisquare": "chi-square p_value",
    "z": "Z-test p_value",
}


@pytest.mark.parametrize("rows", [(600, 500), (4000, 3000)])
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_auto_is_evidentlys_preset_column_by_column(tmp_path: Path, rows: tuple[int, int], ending: str) -> None:
    sides = frame(rows[0], 1), frame(rows[1], 2, 0.5)
    theirs = preset(*sides)
    pins = [stored(tmp_path, name, side, ending) for name, side in zip(("r", "c"), sides, strict=True)]
    for precision in ("exact", "profile"):
        result = compared(*pins, precision=precision)
        assert [column.column for column in result.columns] == list(sides[0].columns)
        for column in result.columns:
            method, score, drifted = theirs[column.column]
            assert (column.column, DISPLAYED[column.method], column.drifted) == (column.column, method, drifted)
            assert column.chosen
            assert column.error is not None
            assert abs((column.score or 0) - score) <= max(column.error, 1e-6)
            assert precision == "profile" or column.error == 0


@pytest.mark.parametrize("precision", ["exact", "profile"])
def test_the_current_data_decide_as_what_whole_numbers_are_compared(tmp_path: Path, precision: str) -> None:
    random = np.random.default_rng(0)
    few = pd.DataFrame({"n": random.poisson(2, 300).clip(max=7)})
    many = pd.DataFrame({"n": np.r_[random.poisson(2.1, 290), np.arange(8, 18)]})
    for name, (reference, current) in {"few": (many, few), "many": (few, many)}.items():
        pins = stored(tmp_path, f"r {name}", reference), stored(tmp_path, f"c {name}", current)
        method, score, drifted = preset(reference, current)["n"]
        column = of(compared(*pins, precision=precision), "n")
        assert (DISPLAYED[column.method], column.drifted) == (method, drifted)
        assert column.score == pytest.approx(score)


def test_few_whole_numbers_are_compared_as_numbers_with_a_profile_that_lost_some(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    reference = stored(tmp_path, "r", pd.DataFrame({f"n{n}": random.poisson(300, 5000) for n in range(100)}))
    current = stored(tmp_path, "c", pd.DataFrame({f"n{n}": random.integers(300, 304, 300) for n in range(100)}))
    for column in compared(profiled(reference), current).columns:
        assert (column.type, column.method, column.drifted) == ("numerical", "wasserstein", True)
        assert column.note.startswith("compared as numbers: the profile of the reference data does not have the column")


def test_texts_are_compared_unless_most_differ_on_both_sides(tmp_path: Path) -> None:
    ids = stored(tmp_path, "r", pd.DataFrame({"t": [f"id {row}" for row in range(300)]}))
    words = stored(tmp_path, "c", pd.DataFrame({"t": ["a", "b", "c"] * 100}))
    assert of(compared(ids, words), "t").drifted
    assert of(compared(words, ids), "t").drifted
    assert of(compared(ids, ids), "t").drifted is None


@pytest.mark.parametrize("seed", range(4))
def test_profiles_and_data_in_any_mix_give_one_verdict(tmp_path: Path, seed: int) -> None:
    reference = stored(tmp_path, "r", frame(12_000, seed))
    current = stored(tmp_path, "c", frame(9000, seed + 50, 0.5))
    exact = compared(reference, current, precision="exact")
    sides: list[tuple[Side, Side]] = [
        (reference, current),
        (profiled(reference), current),
        (reference, profiled(current)),
        (profiled(reference), profiled(current)),
    ]
    for pair in sides:
        found = compared(*pair)
        assert (found.reference_is_profile, found.current_is_profile) == tuple(isinstance(s, DataProfile) for s in pair)
        assert found.verdict == exact.verdict
        assert (found.reference_rows, found.current_rows) == (12_000, 9000)
        for ours, true in zip(found.columns, exact.columns, strict=True):
            assert (ours.column, ours.method, ours.drifted) == (true.column, true.method, true.drifted)
            assert ours.error is not None
            assert abs((ours.score or 0) - (true.score or 0)) <= ours.error + 1e-6


def test_the_method_and_threshold_that_are_pinned_are_used_and_recorded(tmp_path: Path) -> None:
    pins = stored(tmp_path, "r", frame(2000, 1)), stored(tmp_path, "c", frame(2000, 2))
    rules = {"normal": {"method": "ks", "threshold": 0.001}, "ten": {"type": "numerical"}}
    result = compared(
        *pins, numerical_method="psi", numerical_threshold=0.25, categorical_method="chisquare", rules=rules
    )
    normal = of(result, "normal")
    assert (normal.method, normal.threshold, normal.chosen) == ("ks", 0.001, False)
    assert (of(result, "skewed").method, of(result, "skewed").threshold) == ("psi", 0.25)
    assert (of(result, "label").method, of(result, "label").threshold) == ("chisquare", METHODS["chisquare"].threshold)
    assert (of(result, "ten").type, of(result, "ten").method) == ("numerical", "psi")
    assert result.policy.rules["normal"].threshold == 0.001


def odd(rows: int = 400) -> pd.DataFrame:
    random = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "fine": random.normal(size=rows),
            "null": [None] * rows,
            "constant": 5.0,
            "infinite": [math.inf, -math.inf] * (rows // 2),
            "some infinite": np.where(random.random(rows) < 0.3, math.inf, random.normal(size=rows)),
            "text": [f"free text {number}" for number in range(rows)],
            "when": pd.date_range("2026-01-01", periods=rows),
            "huge": random.normal(size=rows) * 1e130,
            "rare": [1.0, *[math.nan] * (rows - 1)],
        }
    )


@pytest.mark.parametrize("precision", ["exact", "profile"])
def test_what_cannot_be_compared_is_unknown_and_says_why(tmp_path: Path, precision: str) -> None:
    pins = stored(tmp_path, "r", odd()), stored(tmp_path, "c", odd())
    result = compared(*pins, precision=precision)
    notes = {column.column: column.note for column in result.columns if column.drifted is None}
    assert notes == {
        "null": "no value in the reference data",
        "infinite": "no finite number in the reference data, where its type is double",
        "text": "most texts differ, so they are not categories; ignore the column, or name it in categorical_columns",
        "when": notes["when"],
        "rare": "1 values in the reference data; at least 100 are needed",
    }
    assert "times are not compared" in notes["when"]
    assert {column.column for column in result.columns if column.drifted is False} == {
        *("fine", "constant", "some infinite", "huge")
    }
    assert "30" in of(result, "some infinite").note
    assert result.verdict == "inconclusive"


@pytest.mark.parametrize("precision", ["exact", "profile"])
@pytest.mark.parametrize("rows", [0, 1, 99])
def test_a_window_with_too_few_rows_is_inconclusive(tmp_path: Path, rows: int, precision: str) -> None:
    current = stored(tmp_path, "c", frame(200, 1, 3.0).head(rows))
    result = compared(stored(tmp_path, "r", frame(500, 2)), current, precision=precision)
    assert result.verdict == "inconclusive"
    assert f"500 reference rows and {rows} current rows, at least 100 of each are needed" in result.reason


@pytest.mark.parametrize("precision", ["exact", "profile"])
def test_columns_that_are_removed_added_or_retyped_are_findings(tmp_path: Path, precision: str) -> None:
    current = frame(500, 2).drop(columns="normal").assign(new=1.0, skewed="a", level=0.5, label=2.0)
    result = compared(stored(tmp_path, "r", frame(500, 1)), stored(tmp_path, "c", current), precision=precision)
    kinds = {(found.kind, found.column) for found in result.findings if found.kind.endswith("_column")}
    assert kinds == {
        ("removed_column", "normal"),
        ("added_column", "new"),
        ("retyped_column", "skewed"),
        ("retyped_column", "label"),
    }
    assert "new" not in {column.column for column in result.columns}
    assert of(result, "normal").note == "missing in the current data"
    assert of(result, "skewed").drifted is None
    assert "its type changed" in of(result, "label").note
    assert result.verdict == "inconclusive"
    for name in ("normal", "skewed", "label"):
        assert f"'{name}'" in result.reason


@pytest.mark.parametrize("precision", ["exact", "profile"])
def test_missing_values_new_categories_and_values_out_of_range_are_findings(tmp_path: Path, precision: str) -> None:
    reference, current = frame(2000, 1), frame(2000, 3)
    current.loc[:599, "holes"] = np.nan
    current.loc[:99, "label"] = "e"
    current.loc[0, "moved label"] = "z"
    current.loc[:49, "skewed"] = 999.0
    result = compared(stored(tmp_path, "r", reference), stored(tmp_path, "c", current), precision=precision)
    found = {(item.kind, item.column): item for item in result.findings}
    assert set(found) == {
        ("missing_rate", "holes"),
        ("new_categories", "label"),
        ("new_categories", "moved label"),
        ("out_of_range", "skewed"),
    }
    assert found["missing_rate", "holes"].current == pytest.approx(current["holes"].isna().mean())
    assert (found["new_categories", "label"].current, found["new_categories", "label"].exceeded) == (0.05, True)
    assert "'e'" in found["new_categories", "label"].message
    assert (found["new_categories", "moved label"].current, found["new_categories", "moved label"].exceeded) == (
        0.0005,
        False,
    )
    beyond = (current["skewed"] > reference["skewed"].max()) | (current["skewed"] < reference["skewed"].min())
    assert found["out_of_range", "skewed"].current == pytest.approx(beyond.mean(), abs=1e-3)


@pytest.mark.parametrize("precision", ["exact", "profile"])
def test_times_that_move_on_are_no_new_categories(tmp_path: Path, precision: str) -> None:
    days = [pd.DataFrame({"day": pd.date_range(start, periods=200)}) for start in ("2026-01-01", "2026-09-01")]
    result = compared(stored(tmp_path, "r", days[0]), stored(tmp_path, "c", days[1]), precision=precision)
    assert result.findings == ()
    assert "times are not compared" in of(result, "day").note


@pytest.mark.parametrize("precision", ["exact", "profile"])
def test_prediction_label_and_quality_have_roles(tmp_path: Path, precision: str) -> None:
    def predicted(rows: int, seed: int, error: float) -> pd.DataFrame:
        random = np.random.default_rng(seed)
        truth = random.normal(size=rows)
        return pd.DataFrame({"x": random.normal(size=rows), "y": truth, "p": truth + random.normal(0, error, rows)})

    pins = stored(tmp_path, "r", predicted(3000, 1, 0.1)), stored(tmp_path, "c", predicted(3000, 2, 0.5))
    result = compared(*pins, precision=precision, prediction="p", target="y")
    assert {column.column: column.role for column in result.columns} == {
        "x": "feature",
        "y": "target",
        "p": "prediction",
        "(prediction error)": "quality",
    }
    assert of(result, "(prediction error)").drifted
    assert not of(result, "x").drifted
    assert (result.verdict, result.drift_share) == ("drifted", 0)
    assert "the quality '(prediction error)' drifted" in result.reason


def test_an_exact_pass_reads_prediction_and_label_only_where_it_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pd.DataFrame(np.random.default_rng(1).normal(size=(200, 6)), columns=["p", "y", *"abcd"])
    pins, passes, read = stored(tmp_path, "r", data), [], FileScan.batches

    def watched(scan: FileScan, columns: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
        passes.append(list(columns or ()))
        return read(scan, columns)

    monkeypatch.setattr(FileScan, "batches", watched)
    monkeypatch.setattr(dataset_comparison, "cpu_count", lambda: 1)  # so that two columns are held at once
    result = compared(pins, pins, precision="exact", prediction="p", target="y")
    assert [column.column for column in result.columns] == [*data.columns, "(prediction error)"]
    quality = [QUALITY_OF_NUMBERS, QUALITY_OF_LABELS, "p", "y"]
    assert passes == [names for names in (["p", "y"], ["a", "b"], ["c", "d"], quality) for _ in range(2)]


def test_a_stored_profile_remembers_its_roles(tmp_path: Path) -> None:
    pins = stored(tmp_path, "r", frame(300, 1)), stored(tmp_path, "c", frame(300, 2))
    result = compared(profiled(pins[0], prediction="label", target="moved label"), pins[1])
    assert (of(result, "label").role, of(result, "moved label").role) == ("prediction", "target")


def test_corrected_p_values_raise_fewer_alarms(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    same = [pd.DataFrame({f"c{n}": random.normal(size=500) for n in range(60)}) for _ in range(2)]
    pins = stored(tmp_path, "r", same[0]), stored(tmp_path, "c", same[1])
    plain, held = (compared(*pins, correction=name) for name in ("none", "benjamini_hochberg"))
    assert plain.drifted_columns_count >= 1
    assert held.drifted_columns_count == 0
    assert all((column.adjusted or 0) >= (column.score or 0) for column in held.columns)


def test_weights_of_features_decide_the_share(tmp_path: Path) -> None:
    pins = stored(tmp_path, "r", frame(2000, 1)), stored(tmp_path, "c", frame(2000, 2, 0.5))
    heavy = compared(*pins, weights={"moved": 8, "normal": 1, "label": 1})
    assert (heavy.verdict, heavy.drift_share) == ("drifted", pytest.approx(0.8))
    assert compared(*pins, weights={"moved": 1, "normal": 9}).verdict == "not_drifted"


@pytest.mark.parametrize("precision", ["exact", "profile"])
def test_numbers_that_are_declared_are_compared_as_categories(tmp_path: Path, precision: str) -> None:
    pins = stored(tmp_path, "r", frame(2000, 1)), stored(tmp_path, "c", frame(2000, 2))
    result = compared(*pins, precision=precision, categorical_columns=["whole"])
    assert (of(result, "whole").type, of(result, "whole").method) == ("categorical", "jensenshannon")
    assert of(result, "whole").drifted is not None


def test_a_profile_of_numbers_is_no_profile_of_categories(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    pins = [stored(tmp_path, name, pd.DataFrame({"code": random.integers(0, 9999, 3000)})) for name in "rc"]
    for current in (pins[1], profiled(pins[1])):
        result = compared(profiled(pins[0]), current, categorical_columns=["code"])
        assert of(result, "code").note == "the profile of the reference data does not have the column as categories"
        assert of(result, "code").drifted is None


def test_more_categories_than_are_kept_are_counted_together(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    data = [pd.DataFrame({f"c{n}": random.zipf(1.3, 40_000).astype(str) for n in range(2)}) for _ in range(2)]
    pins = stored(tmp_path, "r", data[0]), stored(tmp_path, "c", data[1])
    exact, found = compared(*pins, precision="exact"), compared(profiled(pins[0]), profiled(pins[1]))
    for ours, true in zip(found.columns, exact.columns, strict=True):
        assert ours.drifted == true.drifted or ours.close
        assert ours.error is not None
        assert abs((ours.score or 0) - (true.score or 0)) <= ours.error
        assert "counted together" in ours.note


def test_the_picture_shows_both_distributions_in_full(tmp_path: Path) -> None:
    pins = stored(tmp_path, "r", frame(2000, 1)), stored(tmp_path, "c", frame(2000, 2, 0.5))
    for column in compared(*pins).columns:
        picture = column.histogram
        assert picture is not None
        assert sum(picture.reference) == pytest.approx(1, abs=1e-4)
        assert sum(picture.current) == pytest.approx(1, abs=1e-4)
        assert len(picture.reference) == len(picture.labels) or len(picture.reference) + 1 == len(picture.edges)
    picture = of(compared(*pins), "label").histogram
    assert picture is not None
    assert sorted(picture.labels) == list("abcd")


@pytest.mark.parametrize("moved", [False, True])
def test_rows_unlike_the_reference_are_counted_and_shown(tmp_path: Path, moved: bool) -> None:
    random = np.random.default_rng(6)
    names = list("abcde")
    reference = pd.DataFrame(random.normal(size=(4000, 5)), columns=names)
    current = pd.DataFrame(random.normal(size=(3000, 5)), columns=names)
    if moved:
        current.iloc[:300] += 6
    pins = stored(tmp_path, "r", reference), stored(tmp_path, "c", current)
    result = compared(*pins, outliers={"sample_rows": 2000}, drift_on=["outliers"])
    assert result.outliers is not None
    assert result.outliers.rows == (2000, 2000)
    assert result.outliers.reference_share <= 0.01
    assert (result.outliers.current_share > 0.08) == moved
    assert (result.verdict == "drifted") == moved
    if moved:
        assert len(result.outliers.examples) == 5
        assert all(min(v for v in row.values.values() if v is not None) > 2 for row in result.outliers.examples)
    assert result == result.model_copy(update={"outliers": compared(*pins, outliers={"sample_rows": 2000}).outliers})


def test_rows_cannot_be_judged_from_a_profile(tmp_path: Path) -> None:
    pins = stored(tmp_path, "r", frame(300, 1)), stored(tmp_path, "c", frame(300, 2))
    with pytest.raises(
        InvalidArgumentError, match="outliers needs the rows of both datasets, but reference is a profile"
    ):
        compared(profiled(pins[0]), pins[1], outliers={})
    with pytest.raises(InvalidArgumentError, match="precision 'exact' needs the rows"):
        compared(pins[0], profiled(pins[1]), precision="exact")


@pytest.mark.parametrize("precision", ["exact", "profile"])
def test_a_column_that_the_policy_names_must_be_in_the_reference(tmp_path: Path, precision: str) -> None:
    pins = stored(tmp_path, "r", frame(300, 1)), stored(tmp_path, "c", frame(300, 2))
    with pytest.raises(DatasetError, match=r"r\.parquet has no column 'salary'"):
        compared(*pins, precision=precision, weights={"salary": 1.0, "normal": 1.0})
    assert [column.column for column in compared(*pins, precision=precision, columns=["normal", "label"]).columns] == [
        "normal",
        "label",
    ]


def test_the_profile_of_the_current_data_is_made_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = stored(tmp_path, "r", frame(300, 1)), stored(tmp_path, "c", frame(300, 2))
    profiles, make = [], dataset_comparison.small_profile
    monkeypatch.setattr(dataset_comparison, "small_profile", lambda read: profiles.append(make(read)) or profiles[-1])
    made = compare_datasets(*pins, ComparisonPolicy())
    assert not profiles
    assert made.current is not None
    assert made.current.columns == profile_dataset(pins[1]).columns
    assert [made.current] == profiles
    given = profiled(pins[1])
    assert compare_datasets(pins[0], given, ComparisonPolicy()).current is given
    assert compare_datasets(*pins, ComparisonPolicy(precision="exact")).current is None
