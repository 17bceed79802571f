"""Compares online values with offline ones: equal, merely old, computed differently, or missing.

An online value that differs from the newest offline value does not count as skew if it is only older. Feast knows the
time of each online value, so the offline store is asked again for those that differ: as of their own time.

The online store is read in batches. Only values that differ are kept, so memory grows with those and with what the
offline store returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_mcp.core.features.summary import (
    FeatureSkew,
    SkewExample,
    SkewPolicy,
    SkewRequest,
    SkewSummary,
    judge_feature,
    judge_skew,
)
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.features.equality import are_equal, equal_values, is_missing
from airflow_mcp.work.features.store import FEAST_TIME, Store
from airflow_mcp.work.measures.classes import plain_label
from airflow_mcp.work.reading.dataset_frame import load_dataset
from airflow_mcp.work.run.process import library_versions

if TYPE_CHECKING:
    import pandas as pd

ONLINE_AT_ONCE = 1000
"""Keys that the online store is asked for at a time."""
EXAMPLES = 5
"""Values that differ, kept for each feature."""
_WITHIN_SECOND = 0.999999
"""Feast tells the time of an online value in whole seconds; the row itself may be later in that second."""


class _Value(NamedTuple):
    """An online value that is not the offline value of now."""

    row: int
    """Position of its key."""
    online: Any
    at: float
    """Its time online, in seconds since the epoch; 0 without one."""


class _Offline(NamedTuple):
    """What the offline store has of one feature."""

    keys: pd.DataFrame
    now: pd.Series[Any]
    then: Mapping[int, Any]
    """Values as of the time of the online value, by the position of their key."""


@dataclass
class _Found:
    """What the keys compared so far have of one feature."""

    equal: int = 0
    absent: int = 0
    missing: list[_Value] = field(default_factory=list)
    differing: list[_Value] = field(default_factory=list)

    def add(self, start: int, online: Sequence[Any], times: Sequence[float], now: pd.Series[Any], by: float) -> None:
        """Compare a batch of online values with the offline values of the same keys.

        :param start: position of the first key.
        :param online: values of the online store.
        :param times: their times, in seconds since the epoch.
        :param now: values of the offline store.
        :param by: largest relative difference of two equal numbers.
        """
        present = [row for row, value in enumerate(online) if not is_missing(value)]
        values = online if len(present) == len(online) else [online[row] for row in present]
        same = equal_values(values, now.iloc[present], by)
        self.equal += sum(same)
        self.differing += [
            _Value(start + row, online[row], times[row]) for row, equal in zip(present, same, strict=True) if not equal
        ]
        if len(present) == len(online):
            return
        known = set(present)
        for row, value in enumerate(now):
            if row in known:
                continue
            if is_missing(value):
                self.absent += 1
            else:
                self.missing.append(_Value(start + row, online[row], times[row]))


def compare_features(request: SkewRequest) -> SkewSummary:
    """Compare a sample of the online values.

    :param request: the feature store, entity keys, features and policy.
    :raises DatasetError: when the entity keys, the store or a feature cannot be used.
    :raises FailedError: when a store does not answer.
    """
    store = Store(request)
    rows, used = load_dataset(request.entities)
    columns = store.columns(rows, store.features)
    keys = _whole(rows[columns].dropna(subset=store.keys)).drop_duplicates().reset_index(drop=True)
    if keys.empty:
        raise DatasetError("the entity rows have no key. Nothing was compared")
    if len(keys) > request.policy.sample_rows:
        keys = keys.sample(request.policy.sample_rows, random_state=request.policy.seed).reset_index(drop=True)
    as_of = request.as_of or datetime.now(UTC)
    found = [
        feature
        for view, features in _by_view(store.features).items()
        for feature in _compare_view(store, keys, view, features, request.policy, as_of)
    ]
    verdict, reason = judge_skew(tuple(found))
    return SkewSummary(
        identity=request.identity,
        run_id=request.run_id,
        model_name=request.model_name,
        verdict=verdict,
        reason=reason,
        as_of=as_of,
        policy=request.policy,
        entities=used,
        keys=len(keys),
        registry_hash=store.registry_hash(),
        features=tuple(found),
        created_at=datetime.now(UTC).isoformat(),
        environment=library_versions("feast", "pandas", "pyarrow"),
    )


def _whole(keys: pd.DataFrame) -> pd.DataFrame:
    """Return whole numbers that pandas reads as floats, because a row had none, as whole numbers."""
    floats = keys.select_dtypes("float").columns
    return keys.astype({name: "int64" for name in floats if (keys[name] % 1 == 0).all()})


def _by_view(features: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Group features by their view: all values of a view have one time."""
    views: dict[str, tuple[str, ...]] = {}
    for feature in features:
        view = feature.partition(":")[0]
        views[view] = (*views.get(view, ()), feature)
    return views


def _compare_view(
    store: Store, keys: pd.DataFrame, view: str, features: tuple[str, ...], policy: SkewPolicy, as_of: datetime
) -> list[FeatureSkew]:
    names = [feature.partition(":")[2] for feature in features]
    now = store.historical(_at(keys, [as_of.timestamp()] * len(keys)), features)
    found = {name: _Found() for name in names}
    columns = {str(name): [plain_label(value) for value in keys[name].tolist()] for name in keys}
    for start in range(0, len(keys), ONLINE_AT_ONCE):
        batch = slice(start, start + ONLINE_AT_ONCE)
        online = store.online({name: values[batch] for name, values in columns.items()}, features)
        # One time per key and view: that of its values online.
        times = [
            float(max(at or 0 for at in each)) for each in zip(*(online[f"{name}__ts"] for name in names), strict=True)
        ]
        for name, each in found.items():
            each.add(start, online[name], times, now[name].iloc[batch], policy.tolerance)
    then = _then(store, keys, features, found)
    return [
        _judge(f"{view}:{name}", each, _Offline(keys, now[name], then[name]), policy, as_of)
        for name, each in found.items()
    ]


def _at(keys: pd.DataFrame, seconds: Sequence[float]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    return keys.assign(**{FEAST_TIME: pd.to_datetime(list(seconds), unit="s", utc=True).round("us")})


def _then(
    store: Store, keys: pd.DataFrame, features: tuple[str, ...], found: Mapping[str, _Found]
) -> dict[str, Mapping[int, Any]]:
    """Return the offline values of each feature as of the online value's own time, by row, where they differ now."""
    unlike = [value for each in found.values() for value in (*each.differing, *each.missing) if value.at]
    times = dict(sorted((value.row, value.at + _WITHIN_SECOND) for value in unlike))
    if not times:
        return {name: {} for name in found}
    asked = keys.iloc[list(times)].reset_index(drop=True)
    values = store.historical(_at(asked, list(times.values())), features)
    return {name: dict(zip(times, values[name].tolist(), strict=True)) for name in found}


def _judge(feature: str, found: _Found, offline: _Offline, policy: SkewPolicy, as_of: datetime) -> FeatureSkew:
    stale: list[_Value] = []
    skewed: list[_Value] = []
    for value in found.differing:
        is_old = value.at and are_equal(value.online, offline.then[value.row], policy.tolerance)
        (stale if is_old else skewed).append(value)
    unlike = {"skewed": skewed, "missing": found.missing, "stale": stale}
    counts = {"equal": found.equal, **{state: len(values) for state, values in unlike.items()}}
    verdict, reason = judge_feature(counts, policy)
    return FeatureSkew(
        feature=feature,
        **counts,
        absent=found.absent,
        oldest_seconds=max((as_of.timestamp() - value.at for value in stale), default=None),
        verdict=verdict,
        reason=reason,
        examples=_examples(unlike, offline),
    )


def _examples(unlike: Mapping[str, Sequence[_Value]], offline: _Offline) -> tuple[SkewExample, ...]:
    chosen = [(state, value) for state, values in unlike.items() for value in values[:EXAMPLES]][:EXAMPLES]
    return tuple(
        SkewExample(
            key=", ".join(f"{name}={offline.keys[name].iloc[value.row]}" for name in offline.keys),
            state=state,
            online=_text(value.online),
            offline=_text(offline.now.iloc[value.row]),
            offline_then=_text(offline.then[value.row]) if value.at else "",
            online_at=datetime.fromtimestamp(value.at, UTC).isoformat() if value.at else "",
        )
        for state, value in chosen
    )


def _text(value: Any) -> str:
    return "missing" if is_missing(value) else str(value)[:100]
