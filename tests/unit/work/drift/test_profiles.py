from __future__ import annotations

import gzip
import io
import json
import math
import subprocess
import sys
import uuid
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.profile import ColumnProfile, DataProfile, read_profile, write_profile
from airflow_mcp.exceptions import DatasetError, EvidenceError, InvalidArgumentError
from airflow_mcp.work.drift.column_reading import QUALITY_OF_LABELS, QUALITY_OF_NUMBERS, ProfileOptions
from airflow_mcp.work.drift.distribution import differences, from_document
from airflow_mcp.work.drift.profiles import merge_profiles, profile_dataset
from airflow_mcp.work.reading import csv_and_jsonl
from airflow_mcp.work.reading.batch_readers import DataFile
from airflow_mcp.work.reading.dataset_batches import FileScan

KIB_64 = 65_536
COUNTED = pa.proxy_memory_pool(pa.default_memory_pool())
"""What Arrow allocates in a test that sets it; it outlives every buffer."""


def profile(path: Path | str, **options: Any) -> DataProfile:
    return profile_dataset([DatasetPin(uri=str(path))], ProfileOptions(**options))


def of(found: DataProfile, name: str) -> ColumnProfile:
    column = next((column for column in found.columns if column.name == name), None)
    assert column is not None, name
    return column


def frame(rows: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "amount": random.lognormal(3, 1, rows),
            "age": random.integers(18, 90, rows),
            "country": random.choice(["de", "fr", "it", "es"], rows, p=[0.5, 0.3, 0.15, 0.05]),
            "member": random.random(rows) < 0.3,
            "holes": np.where(random.random(rows) < 0.2, np.nan, random.normal(size=rows)),
        }
    )


def split(data: pd.DataFrame, parts: int) -> list[pd.DataFrame]:
    size = len(data) // parts
    return [data.iloc[start : start + size] for start in range(0, len(data), size)]


def written(folder: Path, data: pd.DataFrame, kind: str) -> str:
    """Write data as one of the formats, and give what to read."""
    path = folder / f"data.{kind}"
    if kind == "parquet":
        data.to_parquet(path, row_group_size=700)
    elif kind.startswith("csv"):
        data.to_csv(path, index=False)
    elif kind.startswith("jsonl"):
        data.to_json(path, orient="records", lines=True, double_precision=15)
    elif kind == "arrow":
        pyarrow.feather.write_feather(pa.Table.from_pandas(data), path, compression="uncompressed")
    elif kind == "folder":
        for number, part in enumerate(split(data, 3)):
            (folder / "parts" / f"hour={number}").mkdir(parents=True)
            part.to_parquet(folder / "parts" / f"hour={number}" / "part.parquet")
        (folder / "parts" / "_SUCCESS").touch()
        return str(folder / "parts")
    elif kind == "glob":
        for number, part in enumerate(split(data, 3)):
            part.to_csv(folder / f"part-{number}.csv", index=False)
        return str(folder / "part-*.csv")
    else:
        with fsspec.open(f"memory://{folder.name}/data.parquet", "wb") as stream:
            data.to_parquet(stream)
        return f"memory://{folder.name}/data.parquet"
    return str(path)


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "jsonl", "jsonl.gz", "arrow", "folder", "glob", "url"])
def test_every_format_gives_the_same_profile(tmp_path: Path, kind: str) -> None:
    data = frame(3000)
    found = profile(written(tmp_path, data, kind))
    assert found.rows == 3000
    assert [column.name for column in found.columns] == list(data.columns)
    assert [column.kind for column in found.columns] == [
        *("numerical", "numerical", "categorical", "categorical", "numerical")
    ]
    amount, holes = of(found, "amount").distribution, of(found, "holes")
    assert amount is not None
    assert amount.mean == pytest.approx(data["amount"].mean(), rel=1e-9)
    assert (amount.values[0], amount.values[-1]) == pytest.approx((data["amount"].min(), data["amount"].max()))
    assert amount.rows == 3000
    assert holes.missing + holes.nan == data["holes"].isna().sum()
    countries = of(found, "country").categories
    assert countries is not None
    assert countries.counts == data["country"].value_counts().to_dict()
    members = of(found, "member").categories
    assert members is not None
    assert {name.lower(): count for name, count in members.counts.items()} == {
        "true": data["member"].sum(),
        "false": (~data["member"]).sum(),
    }


def test_the_profile_knows_where_its_data_came_from(tmp_path: Path) -> None:
    path = written(tmp_path, frame(100), "parquet")
    found = profile(path)
    assert found.sources == (DatasetPin(uri=path),)
    assert set(found.environment) >= {"numpy", "pyarrow"}
    digest = "sha256:" + "0" * 64
    with pytest.raises(DatasetError, match="not the one that was pinned"):
        profile_dataset([DatasetPin(uri=path, hash=digest)])


def wide(columns: int, rows: int = 3000) -> pd.DataFrame:
    random = np.random.default_rng(1)
    makers: list[Callable[[], Any]] = [
        lambda: random.normal(size=rows),
        lambda: random.lognormal(2, 2, rows) * 1e6,
        lambda: random.poisson(40, rows),
        lambda: random.normal(1.7e9, 1e5, rows),
        lambda: random.normal(size=rows).round(2),
    ]
    return pd.DataFrame({f"a_feature_with_a_long_name_{n:04d}": makers[n % len(makers)]() for n in range(columns)})


def with_texts(rows: int = 3000) -> pd.DataFrame:
    random = np.random.default_rng(2)
    data = wide(70, rows)
    for number in range(10):
        data[f"id_{number}"] = [str(uuid.UUID(bytes=random.bytes(16))) for _ in range(rows)]
        data[f"city_{number}"] = [f"Stadt an der Strasse {value}" for value in random.zipf(1.2, rows).clip(max=5000)]
        data[f"code_{number}"] = random.choice(list("abcdefghij"), rows)
    return data


@pytest.mark.parametrize(
    ("make", "columns"), [(lambda: wide(100), 100), (lambda: wide(230), 230), (with_texts, 100), (lambda: wide(7), 7)]
)
def test_a_written_profile_takes_64_kib_per_100_columns_at_most(
    tmp_path: Path, make: Callable[[], pd.DataFrame], columns: int
) -> None:
    make().to_parquet(tmp_path / "d.parquet")
    found = profile(tmp_path / "d.parquet")
    text = write_profile(found)
    assert len(found.columns) == columns
    assert len(text.encode()) <= KIB_64 * math.ceil(columns / 100)
    assert read_profile(text, "the text") == found
    errors = [column.distribution.rank_error for column in found.columns if column.distribution]
    assert max(errors) < 0.05


LARGE: dict[str, Callable[[np.random.Generator], Any]] = {
    "log-normal numbers": lambda random: random.lognormal(0, 3, 2000),
    "nanoseconds": lambda random: 1.7e18 + random.integers(0, 10**15, 2000),
    "latitudes": lambda random: 48 + random.normal(0, 1e-4, 2000),
    "few long numbers": lambda random: random.choice(random.normal(size=20), 2000),
    "long names": lambda random: random.choice([f"とても長い名前{n}" * 8 for n in range(300)], 2000),
    "quotes": lambda random: random.choice(['"' * 40 + f"{n}" for n in range(300)], 2000),
}


@pytest.mark.parametrize("values", LARGE)
def test_the_size_holds_whatever_the_values_are(tmp_path: Path, values: str) -> None:
    make, name = LARGE[values], "a very long name, " * 9 if values == "latitudes" else "feature"
    random = np.random.default_rng(0)
    data = pd.DataFrame({f"{name}_{n:03}": make(random) for n in range(100)})
    data.to_parquet(tmp_path / "d.parquet")
    found = profile(tmp_path / "d.parquet")
    longer = sum(max(0, len(column) - 100) for column in data.columns)
    assert len(write_profile(found).encode()) <= KIB_64 + longer
    for column in found.columns:
        kept = column.distribution or column.categories
        assert kept is not None
        assert kept.rows == 2000
    assert read_profile(write_profile(found), "the text") == found


def test_sources_beyond_a_few_kilobytes_are_counted(tmp_path: Path) -> None:
    frame(100).to_parquet(tmp_path / "d.parquet")
    hour = profile(tmp_path / "d.parquet")
    year = merge_profiles([merge_profiles([hour] * 300), hour])
    assert len(year.sources) + year.more_sources == 301
    assert len(year.sources) > 10
    assert len(write_profile(year).encode()) <= KIB_64
    assert (hour.more_sources, merge_profiles([hour] * 3).more_sources) == (0, 0)


def test_merged_counts_decide_whether_texts_are_categories(tmp_path: Path) -> None:
    random, cities = np.random.default_rng(0), [f"city {n}" for n in range(60)]
    hours = []
    for number in range(24):
        city = [*random.permutation(cities), *random.choice(cities, 40)]
        ids = [f"{number} {row}" for row in range(100)]
        pd.DataFrame({"city": city, "id": ids, "code": ids}).to_parquet(tmp_path / f"{number}.parquet")
        hours.append(profile(tmp_path / f"{number}.parquet", categorical_columns=["code"]))
    assert [column.kind for column in hours[0].columns] == ["text", "text", "categorical"]
    day, merged = profile(str(tmp_path), categorical_columns=["code"]), merge_profiles(hours)
    assert [column.kind for column in merged.columns] == ["categorical", "text", "categorical"]
    assert [column.kind for column in day.columns] == ["categorical", "text", "categorical"]
    assert of(merged, "city").categories == of(day, "city").categories


def test_hours_merge_into_the_day(tmp_path: Path) -> None:
    day = frame(24_000)
    hours = []
    for number, part in enumerate(split(day, 24)):
        part.to_parquet(tmp_path / f"hour-{number}.parquet")
        hours.append(profile(tmp_path / f"hour-{number}.parquet"))
    merged = merge_profiles(hours)
    at_once = profile(tmp_path / "hour-*.parquet")
    assert merged.rows == at_once.rows == 24_000
    assert len(merged.sources) == 24
    for name in ("amount", "age", "holes"):
        first, second = (of(found, name).distribution for found in (merged, at_once))
        assert first is not None
        assert second is not None
        assert first.mean == pytest.approx(second.mean)
        assert first.variance == pytest.approx(second.variance)
        rank, area = differences(from_document(first), from_document(second))
        assert rank <= first.rank_error + second.rank_error
        assert area <= first.distance_error + second.distance_error
        assert first.rank_error < 0.03
    assert of(merged, "country").categories == of(at_once, "country").categories


def test_a_part_that_lacks_a_column_has_it_missing(tmp_path: Path) -> None:
    frame(300).to_parquet(tmp_path / "a.parquet")
    frame(200).drop(columns="age").to_parquet(tmp_path / "b.parquet")
    parts = [profile(tmp_path / "a.parquet"), profile(tmp_path / "b.parquet")]
    for found in (profile(tmp_path), merge_profiles(parts), merge_profiles(parts[::-1])):
        assert of(found, "age").missing == 200
        assert of(found, "age").values == 300


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(InvalidArgumentError, match="profiles must contain at least one profile"):
        merge_profiles([])


def test_odd_columns_have_a_kind_and_counts(tmp_path: Path) -> None:
    table = pa.table(
        {
            "nothing": pa.nulls(6),
            "nothing but nan": [math.nan] * 6,
            "infinite": [math.inf, -math.inf, 1e200, 1.0, 2.0, math.nan],
            "constant": [3] * 6,
            "when": pa.array([1, 2, 3, 4, 5, 6], pa.timestamp("s")),
            "list": [[1], [2], [3], [4], [5], [6]],
            "bytes": [b"a"] * 6,
            "exact": pa.array([1, 2, 3, 4, 5, None], pa.decimal128(9, 2)),
            "coded": pa.array(["a", "b", "a", "b", None, "a"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "odd.parquet")
    found = profile(tmp_path / "odd.parquet")
    kinds = {column.name: (column.kind, column.values) for column in found.columns}
    assert kinds == {
        "nothing": ("empty", 0),
        "nothing but nan": ("numerical", 0),
        "infinite": ("numerical", 2),
        "constant": ("numerical", 6),
        "when": ("time", 6),
        "list": ("other", 0),
        "bytes": ("other", 0),
        "exact": ("numerical", 5),
        "coded": ("categorical", 5),
    }
    infinite = of(found, "infinite")
    assert (infinite.nan, infinite.positive_infinite, infinite.negative_infinite) == (1, 2, 1)
    assert read_profile(write_profile(found), "odd") == found


def test_a_column_of_numbers_and_texts_is_text_in_csv_and_mixed_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{number % 20},{number * 1.5}" for number in range(50)] + ["oops,1"] * 50
    (tmp_path / "m.csv").write_text("a,b\n" + "\n".join(rows) + "\n")
    for size in (1 << 20, 200):
        monkeypatch.setattr(csv_and_jsonl.csv_blocks, "__defaults__", (size,))
        found = profile(tmp_path / "m.csv")
        assert found.rows == 100
        assert (of(found, "a").kind, of(found, "a").type) == ("categorical", "string")
        texts = of(found, "a").categories
        assert texts is not None
        assert texts.counts == {"oops": 50} | {str(number): 3 if number < 10 else 2 for number in range(20)}
        assert of(found, "b").kind == "numerical"
    lines = [json.dumps({"a": value}) for value in (1, 2.5, "x", None, math.nan)]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    assert of(profile(tmp_path / "m.jsonl"), "a").kind == "other"


def test_csv_is_cut_between_records_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_and_jsonl.csv_blocks, "__defaults__", (64,))
    data = pd.DataFrame({"n": range(60), "text": ['say "hello",\nthen go', "plain", "and\n\nagain"] * 20})
    data.to_csv(tmp_path / "q.csv", index=False)
    found = profile(tmp_path / "q.csv")
    assert found.rows == 60
    texts = of(found, "text").categories
    assert texts is not None
    assert texts.counts == data["text"].value_counts().to_dict()


@pytest.mark.parametrize(
    ("name", "content", "question"),
    [
        ("endless.csv", 'a,b\n1,"', "is a quotation mark left open"),
        ("endless.jsonl", "[", "is it one JSON object per line"),
    ],
)
def test_a_record_that_does_not_end_is_refused_before_all_of_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, question: str
) -> None:
    monkeypatch.setattr(csv_and_jsonl, "_MAX_RECORD_BYTES", 1 << 20)
    for function in (csv_and_jsonl.csv_blocks, csv_and_jsonl.json_names, csv_and_jsonl.json_tables):
        monkeypatch.setattr(function, "__defaults__", (1 << 18,))
    read: list[int] = []

    class Counted(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            read.append(size or 0)
            return super().read(size) or b""

    monkeypatch.setattr(DataFile, "opened", lambda file: Counted(file.path))
    (tmp_path / name).write_text(content + "1," * (4 << 20))
    with pytest.raises(DatasetError, match=rf"{name} is not readable .*a record is longer than 1 MiB; {question}\?"):
        profile(tmp_path / name)
    assert sum(read) < 2 << 20


def test_how_well_rows_were_predicted_is_a_column(tmp_path: Path) -> None:
    pd.DataFrame({"p": [1.0, 2.0, 3.0], "y": [1.5, 2.0, None], "x": [1, 2, 3]}).to_parquet(tmp_path / "n.parquet")
    found = profile(tmp_path / "n.parquet", prediction="p", target="y")
    assert [(column.name, column.role) for column in found.columns] == [
        *[("p", "prediction"), ("y", "target"), ("x", "feature"), (QUALITY_OF_NUMBERS, "quality")]
    ]
    quality = of(found, QUALITY_OF_NUMBERS)
    assert quality.distribution is not None
    assert (quality.distribution.values, quality.missing + quality.nan) == ((0.0, 0.5), 1)
    pd.DataFrame({"p": ["a", "b"], "y": ["a", "a"]}).to_parquet(tmp_path / "c.parquet")
    labels = of(profile(tmp_path / "c.parquet", prediction="p", target="y"), QUALITY_OF_LABELS)
    assert labels.categories is not None
    assert labels.categories.counts == {"False": 1, "True": 1}


def test_columns_are_chosen_and_declared(tmp_path: Path) -> None:
    frame(200).to_parquet(tmp_path / "d.parquet")
    found = profile(tmp_path / "d.parquet", columns=["age", "country"], categorical_columns=["age"])
    assert [(column.name, column.kind) for column in found.columns] == [
        ("age", "categorical"),
        ("country", "categorical"),
    ]
    assert "age" not in {column.name for column in profile(tmp_path / "d.parquet", ignored_columns=["age"]).columns}
    with pytest.raises(DatasetError, match="has no column 'salary'; it has 'amount', 'age'"):
        profile(tmp_path / "d.parquet", columns=["age", "salary"])


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_columns_that_other_options_name_are_read_beside_the_chosen(tmp_path: Path, kind: str) -> None:
    data = pd.DataFrame(
        {"a": [1, 2], "p": [1.0, 2.0], "y": [1.5, 2.0], "code": [7, 8], "sure": [0.1, 0.2], "x": [1, 2]}
    )
    named = {"prediction": "p", "target": "y", "categorical_columns": ["code"], "quality_columns": ["sure"]}
    found = profile(written(tmp_path, data, kind), columns=["a"], **named)
    assert {column.name: (column.role, column.kind) for column in found.columns} == {
        "a": ("feature", "numerical"),
        "p": ("prediction", "numerical"),
        "y": ("target", "numerical"),
        "code": ("feature", "categorical"),
        "sure": ("quality", "numerical"),
        QUALITY_OF_NUMBERS: ("quality", "numerical"),
    }


def numbers(columns: int, rows: int) -> pd.DataFrame:
    values = np.random.default_rng(columns).normal(size=(rows, columns))
    return pd.DataFrame(values, columns=[f"n{number}" for number in range(columns)])


def test_a_wide_row_group_is_not_held_as_a_whole(tmp_path: Path) -> None:
    data = numbers(320, 20_000)
    data.to_parquet(tmp_path / "d.parquet", row_group_size=len(data))
    usual = pa.default_memory_pool()
    pa.set_memory_pool(COUNTED)
    try:
        found = profile(tmp_path / "d.parquet")
    finally:
        pa.set_memory_pool(usual)
    assert [column.name for column in found.columns] == list(data.columns)
    assert data.memory_usage().sum() / 20 < COUNTED.max_memory() < data.memory_usage().sum() / 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_reading_took_is_given_back(tmp_path: Path) -> None:
    numbers(64, 40_000).to_parquet(tmp_path / "d.parquet", row_group_size=40_000)
    script = """
import sys
from pathlib import Path
import pyarrow as pa
from airflow_mcp.core.evaluation.evidence import DatasetPin
from airflow_mcp.work.drift.profiles import profile_dataset

def resident():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024

profile_dataset([DatasetPin(uri=sys.argv[1])])
kept = resident()
pa.default_memory_pool().release_unused()
print(kept - resident())
"""
    child = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "d.parquet")], check=True, capture_output=True, text=True
    )
    assert float(child.stdout) < 40  # of more than 100 MiB


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_wide_data_are_profiled_in_their_order_with_roles_and_quality(tmp_path: Path, kind: str) -> None:
    data = numbers(150, 20)
    found = profile(written(tmp_path, data, kind), prediction="n140", target="n3", ignored_columns=["n70"])
    assert [column.name for column in found.columns] == [*data.columns.drop("n70"), QUALITY_OF_NUMBERS]
    assert (of(found, "n140").role, of(found, "n3").role) == ("prediction", "target")
    assert found.rows == 20
    alone = profile_dataset([DatasetPin(uri=str(tmp_path / f"data.{kind}"))], ProfileOptions(columns=["n0", "n149"]))
    assert [of(found, name) for name in ("n0", "n149")] == list(alone.columns)
    apart = of(found, QUALITY_OF_NUMBERS).distribution
    assert apart is not None
    assert max(apart.values) == pytest.approx((data["n140"] - data["n3"]).abs().max())


def test_wide_data_that_change_between_two_passes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "d.parquet", FileScan.batches
    numbers(100, 30).to_parquet(path)

    def replaced(scan: FileScan, columns: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
        yield from read(scan, columns)
        numbers(100, 31).to_parquet(path)

    monkeypatch.setattr(FileScan, "batches", replaced)
    with pytest.raises(DatasetError, match=r"d\.parquet changed while it was read: it had 30 rows and now has 31\."):
        profile(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"PAR1 no", "a.parquet is not readable as parquet"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "a.csv is not readable as csv"),
        ("a.csv", b"a,a\n1,2\n", "more than one column named 'a'"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "line 2"),
        ("a.jsonl", b"[1]\n", "line 1: it is not a JSON object"),
        ("a.csv.gz", b"a,b\n1,2\n", "a.csv.gz is not readable as csv: BadGzipFile"),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], "ended before the end-of-stream marker was reached"),
        ("a.parquet.gz", b"", "; got '.parquet.gz'"),
        ("a.xlsx", b"", "; got '.xlsx'"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        profile(tmp_path / name)


def test_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    for uri in (f"{tmp_path}/none.parquet", f"{tmp_path}/*.csv", str(tmp_path)):
        with pytest.raises(DatasetError, match="does not exist, or has no file"):
            profile(uri)
    with pytest.raises(DatasetError, match="cannot be found: ValueError") as refused:
        profile("gopher://somebody:secret@host/data.csv")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_an_empty_window_has_a_profile_without_values(tmp_path: Path, kind: str) -> None:
    found = profile(written(tmp_path, frame(5).head(0), kind))
    assert found.rows == 0
    assert [(column.name, column.kind, column.values) for column in found.columns] == [
        (name, "empty", 0) for name in frame(1)
    ]
    assert read_profile(write_profile(found), "empty") == found


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": "airflow_mcp/profile/9"}, "schema"),
        ({"extra": 1}, "extra"),
        ({"rows": "12"}, "rows"),
        ({"columns": [{"name": "a", "kind": "odd", "type": "x"}]}, "kind"),
        ({"columns": [{"name": "a", "kind": "other", "type": "x"}] * 2}, "distinct names"),
        (
            {
                "columns": [
                    {
                        "name": "a",
                        "kind": "numerical",
                        "type": "double",
                        "distribution": {"values": [2, 1], "at": [1, 1], "mean": 0, "variance": 1},
                    }
                ]
            },
            "ascend",
        ),
    ],
)
def test_a_profile_is_read_strictly(change: dict[str, Any], problem: str) -> None:
    text = json.dumps({"schema": "airflow_mcp/profile/1", "rows": 1, "columns": []} | change)
    with pytest.raises(EvidenceError, match=problem):
        read_profile(text, "profile.json")
