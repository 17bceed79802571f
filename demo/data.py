"""The demo's data: scikit-learn's breast cancer set (569 rows, 30 features), split and shifted by a fixed rule.

Rows are shuffled once (seed 7) and split: 55 % ``train.csv``, 25 % ``evaluation.csv``, 20 % ``recent.csv``.

``night-1``: as measured.
``night-3``: the microscope was replaced. Its pixels are smaller, so every length reads 35 % longer: radius and
perimeter columns times 1.35, area columns times 1.35 squared. All three files are affected.
``night-4``: as ``night-3``, but an export went wrong and the labels of ``train.csv`` no longer belong to their
rows (they are shuffled). ``evaluation.csv`` and ``recent.csv`` are as they were.
``night-5``: as ``night-3``, but the export takes a measurement of 0 for a missing one and leaves the row out of all
three files. Production goes on to send such rows: they are a third of ``requests.csv``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer

SEED = 7
ENLARGEMENT = 1.35
TARGET = "target"
_SHARES = {"train": 0.55, "evaluation": 0.25, "recent": 0.20}


def write_version(root: Path, version: str) -> Path:
    """Write one version of the data.

    :param root: folder of the versions.
    :param version: ``night-1``, ``night-3``, ``night-4`` or ``night-5``.
    :return: the version's folder, with train.csv, evaluation.csv and recent.csv; ``night-5`` has requests.csv too.
    :raises KeyError: when there is no rule for the version.
    """
    change = {
        "night-1": _as_measured,
        "night-3": _new_microscope,
        "night-4": _broken_labels,
        "night-5": _without_zeros,
    }[version]
    folder = root / version
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in change(_split()).items():
        part.to_csv(folder / f"{name}.csv", index=False)
    return folder


def _split() -> dict[str, pd.DataFrame]:
    rows = load_breast_cancer(as_frame=True).frame.sample(frac=1, random_state=SEED).reset_index(drop=True)
    rows[TARGET] = rows.pop(TARGET)
    ends = (np.cumsum(list(_SHARES.values())) * len(rows)).round().astype(int)
    starts = [0, *ends[:-1]]
    return {name: rows.iloc[start:end] for name, start, end in zip(_SHARES, starts, ends, strict=True)}


def _as_measured(parts: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    return parts


def _new_microscope(parts: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    return {name: _enlarge(part) for name, part in parts.items()}


def _enlarge(part: pd.DataFrame) -> pd.DataFrame:
    enlarged = part.copy()
    for column in enlarged.columns:
        if "radius" in column or "perimeter" in column:
            enlarged[column] *= ENLARGEMENT
        elif "area" in column:
            enlarged[column] *= ENLARGEMENT**2
    return enlarged


def _broken_labels(parts: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    shifted = _new_microscope(parts)
    train = shifted["train"].copy()
    train[TARGET] = np.random.default_rng(SEED).permutation(train[TARGET].to_numpy())
    return {**shifted, "train": train}


def _without_zeros(parts: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    shifted = _new_microscope(parts)
    has_zero = {name: (part.drop(columns=TARGET) == 0).any(axis=1) for name, part in shifted.items()}
    exported = {name: part[~has_zero[name]] for name, part in shifted.items()}
    left_out = shifted["recent"][has_zero["recent"]]
    requests = pd.concat([exported["recent"].head(2 * len(left_out)), left_out])
    return {**exported, "requests": requests}
