"""Our drift check next to Evidently on public data sets, column by column: ``make parity``.

Every data set is divided in two ways, into its first and its second half, and by the values of one of its columns, and
is read from Parquet and from CSV. Both sides choose types and methods for themselves, with their defaults.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.drift.policy import ComparisonPolicy
from airflow_mcp.core.drift.result import ColumnResult
from airflow_mcp.work.drift.dataset_comparison import compare_datasets
from tests.parity.datasets import data_sets

PAGE = Path(__file__).parents[2] / "docs" / "drift.md"
BEGIN, END = "<!-- parity: begin (make parity) -->", "<!-- parity: end -->"
SAME = 1e-6
"""Difference up to which scores are the same; those of Evidently are rounded nowhere."""
METHODS = {
    "Wasserstein distance (normed)": "wasserstein",
    "K-S p_value": "ks",
    "Jensen-Shannon distance": "jensenshannon",
    "chi-square p_value": "chisquare",
    "Z-test p_value": "z",
}
REASONS = {
    "text on both sides": "Evidently trains a classifier on the texts; ours says unknown: an id always drifts",
    "text in the current data only": "Evidently trains a classifier; ours compares the categories of the reference",
    "flags with missing values": "pandas reads them as objects, which Evidently leaves out; ours compares them",
    "flags in one half only": "pandas reads them as objects where some are missing; ours compares them",
    "one category": "Evidently's chi-square has no number for a single category; ours is 1, no drift",
    "unsigned or short whole numbers": "Evidently knows no type for them; ours compares them as numbers",
    "dates as text": "pandas reads dates of CSV as text; ours as times, which move by nature and are not compared",
    "times of day as text": "pandas reads them as text; ours does not compare times of day",
    "numbers on one side, text on the other": (
        "such as codes of CSV: Evidently compares them nevertheless; ours says that the type changed"
    ),
    "no value on one side": "Evidently refuses the whole report; ours says unknown for this column",
    "an unnamed column": "the index that pandas wrote into CSV: Evidently compares it, ours does not",
    "numbers beyond 10^140": "their squares are infinite; ours leaves them out",
    "Evidently fails": "Evidently raises an error of its own; ours has an answer",
}
"""Class of differences to its reason; one that is not here is a difference without a reason, a fault of ours."""


class Answer(NamedTuple):
    """What one side says of a column."""

    type: str
    method: str = ""
    score: float | None = None
    drifted: bool | None = None
    """None: not compared."""
    note: str = ""


@dataclass
class Tally:
    """Running totals over all columns."""

    columns: int = 0
    same: int = 0
    neither: int = 0
    methods: Counter[str] = field(default_factory=Counter)
    differences: dict[str, list[str]] = field(default_factory=dict)
    within: int = 0
    """Columns whose score from a profile is within its stated error of the exact score."""
    bounded: int = 0
    verdicts: int = 0
    """Columns with the same verdict from a profile, or marked as close to the threshold."""


def evidently(reference: pd.DataFrame, current: pd.DataFrame) -> dict[str, Answer]:
    """Ask Evidently with its defaults for the types, and for each column what its preset does, without the drawings."""
    from evidently import Dataset

    types = {name: Dataset.from_pandas(current[[name]].copy()).column(name).type for name in current.columns}
    return {name: _of_column(name, reference, current, kind) for name, kind in types.items()}


def _of_column(name: str, reference: pd.DataFrame, current: pd.DataFrame, kind: Any) -> Answer:
    from evidently.legacy.calculations.data_drift import get_one_column_drift
    from evidently.legacy.metric_results import DatasetColumns, DatasetUtilityColumns
    from evidently.legacy.options.data_drift import DataDriftOptions

    if kind.value not in ("num", "cat"):
        return Answer(kind.value)
    columns = DatasetColumns(
        utility_columns=DatasetUtilityColumns(date=None, id=None, target=None, prediction=None),
        target_type=None,
        task=None,
        num_feature_names=[name] if kind.value == "num" else [],
        cat_feature_names=[name] if kind.value == "cat" else [],
        text_feature_names=[],
        datetime_feature_names=[],
        target_names=None,
    )
    try:
        drift = get_one_column_drift(
            current_data=current[[name]],
            reference_data=reference[[name]],
            column_name=name,
            options=DataDriftOptions(),
            dataset_columns=columns,
            column_type=kind,
            agg_data=True,
        )
    except Exception as error:  # Evidently raises whatever its statistics and pictures raise
        return Answer(kind.value, note=f"{type(error).__name__}: {error}"[:120])
    return Answer(kind.value, METHODS[drift.stattest_name], float(drift.drift_score), bool(drift.drift_detected))


def ours(reference: Path, current: Path, precision: str) -> dict[str, ColumnResult]:
    """Compare two files with our defaults, without a least number of rows, which Evidently does not have."""
    policy = ComparisonPolicy.model_validate({"precision": precision, "min_rows": 1})
    result = compare_datasets([DatasetPin(uri=str(reference))], [DatasetPin(uri=str(current))], policy).result
    return {column.column: column for column in result.columns}


def classify(theirs: Answer, mine: ColumnResult, sides: Sequence[pd.Series[Any]]) -> str:
    """Return the class of a difference; empty when none of the known reasons holds."""
    current = sides[1]
    kinds = {mine.reference.kind if mine.reference else "", mine.current.kind if mine.current else ""}
    objects = [side.dtype == object for side in sides]
    checks = {
        "an unnamed column": not mine.column or mine.column.startswith("Unnamed: "),
        "no value on one side": any(side.isna().all() for side in sides),
        "text on both sides": theirs.type == "text" and kinds == {"text"},
        "dates as text": "time" in kinds and any(objects),
        "times of day as text": "time32" in mine.note or "time64" in mine.note,
        "text in the current data only": theirs.type == "text" and mine.drifted is not None,
        "one category": theirs.score is not None and np.isnan(theirs.score) and mine.score == 1,
        "flags with missing values": any(objects) and "bool" in (mine.reference or mine.current).type,  # type: ignore[union-attr]
        "unsigned or short whole numbers": current.dtype.kind == "u" and theirs.type == "unknown",
        "numbers beyond 10^140": any(side.dtype.kind == "f" and (side.abs() > 1e140).any() for side in sides),
        "numbers on one side, text on the other": any(objects) and "numerical" in kinds,
        "Evidently fails": bool(theirs.note) and mine.drifted is not None,
    }
    return next((name for name, holds in checks.items() if holds), "")


def divided(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Yield a data set divided into halves, and by the column that divides it most evenly into two groups of values."""
    middle = len(frame) // 2
    yield "halves", frame.iloc[:middle], frame.iloc[middle:]
    best: tuple[float, str, pd.Series[Any]] | None = None
    for name in frame.columns:
        column = frame[name]
        try:
            number = column.nunique()
            if not 2 <= number <= len(frame) // 4:
                continue
            if column.dtype.kind in "iuf" and number > 10:
                first = column <= column.median()
            else:
                first = column == column.value_counts().index[0]
        except TypeError:  # lists and other values that have no order or no hash
            continue
        uneven = abs(float(first.mean()) - 0.5)
        if best is None or uneven < best[0]:
            best = (uneven, name, first)
    if best is not None and best[0] < 0.4:
        yield f"by {best[1]}", frame[best[2]], frame[~best[2]]


def compare(name: str, ending: str, sides: Sequence[pd.DataFrame], folder: Path, tally: Tally) -> None:
    """Compare one division of one data set, written in one format, and count what comes out."""
    paths = [folder / f"{side}.{ending}" for side in ("reference", "current")]
    for frame, path in zip(sides, paths, strict=True):
        if ending == "parquet":
            frame.to_parquet(path, index=False)
        else:
            frame.to_csv(path, index=False)
    frames = [pd.read_parquet(path) if ending == "parquet" else pd.read_csv(path, low_memory=False) for path in paths]
    theirs, exact, profiled = (
        evidently(frames[0], frames[1]),
        *(ours(paths[0], paths[1], precision) for precision in ("exact", "profile")),
    )
    for column, mine in exact.items():
        _count(f"{name}: {column}", theirs[column], mine, [frame[column] for frame in frames], tally)
        _count_profile(mine, profiled[column], tally)


def _count(shown: str, theirs: Answer, mine: ColumnResult, sides: Sequence[pd.Series[Any]], tally: Tally) -> None:
    tally.columns += 1
    if theirs.drifted is None and mine.drifted is None and theirs.type != "text":
        tally.neither += 1
        return
    scores = mine.score, theirs.score
    same = (mine.method, mine.drifted) == (theirs.method, theirs.drifted)
    if same and scores[0] is not None and scores[1] is not None and abs(scores[0] - scores[1]) <= SAME:
        tally.same += 1
        tally.methods[mine.method] += 1
        return
    said = f"ours {mine.method} {mine.score} {mine.drifted} {mine.note}; Evidently {theirs}"
    tally.differences.setdefault(classify(theirs, mine, sides), []).append(f"{shown}: {said}")


def _count_profile(exact: ColumnResult, profiled: ColumnResult, tally: Tally) -> None:
    if exact.score is None or profiled.score is None:
        return
    tally.verdicts += profiled.drifted == exact.drifted or profiled.close
    if profiled.error is not None:
        tally.bounded += 1
        tally.within += abs(profiled.score - exact.score) <= profiled.error + SAME


def table(tally: Tally, names: Sequence[str]) -> str:
    """Return the outcome as Markdown for the page."""
    packages = Counter(name.split("/")[0] for name in names)
    different = sum(map(len, tally.differences.values()))
    named = ", ".join(f"{count} of {name}" for name, count in packages.most_common())
    methods = ", ".join(f"{count} `{name}`" for name, count in tally.methods.most_common())
    lines = [
        f"On {len(names)} public data sets ({named}), {tally.columns} columns were compared. {tally.same} have the "
        f"same method, verdict and score within 10^-6 ({methods}), {tally.neither} are compared by neither, "
        f"and {different} differ:",
        "",
        "| columns | what differs | why |",
        "| --- | --- | --- |",
    ]
    for name, found in sorted(tally.differences.items(), key=lambda item: -len(item[1])):
        lines.append(f"| {len(found)} | {name or 'no known reason'} | {REASONS.get(name, '')} |")
    lines += [
        "",
        f"From profiles, {tally.within} of {tally.bounded} scores with a stated error are within it, and "
        f"{tally.verdicts} verdicts are those of the full data or marked as close.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the comparison; the exit code is 1 when a difference has no known reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path, help="folder with the packages of requirements.txt")
    parser.add_argument("--most", type=int, default=2, help="data sets of each package of R; 1000 takes all")
    parser.add_argument("--only", default="", help="beginning of the names of data sets")
    parser.add_argument("--examples", type=int, default=3, help="examples to print of each class")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    asked = parser.parse_args()
    tally, started = Tally(), time.monotonic()
    names: list[str] = []
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    for name, frame in data_sets(asked.packages, asked.most):
        if not name.startswith(asked.only):
            continue
        names.append(name)
        for how, *sides in divided(frame):
            for ending in ("parquet", "csv"):
                shown = f"{name} ({how}, {ending})"
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        compare(shown, ending, sides, Path(folder), tally)
                    except Exception as error:  # one data set must not end the run; it is a difference without a reason
                        tally.differences.setdefault("", []).append(f"{shown}: {type(error).__name__}: {error}")
        print(f"{time.monotonic() - started:6.0f} s {name}: {tally.same} of {tally.columns} the same", flush=True)
    for kind, found in tally.differences.items():
        print(f"\n{kind or 'NO KNOWN REASON'}: {len(found)}")
        for line in found[: asked.examples if kind else None]:
            print(f"  {line}")
    print(f"\n{table(tally, names)}")
    if asked.write:
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{table(tally, names)}\n{END}{after}", encoding="utf-8")
    return 1 if "" in tally.differences else 0


if __name__ == "__main__":
    raise SystemExit(main())
