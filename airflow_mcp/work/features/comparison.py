"""Compares online values with offline ones: equal, merely old, computed differently, or missing.

An online value that differs from the newest offline value does not count as skew if it is only older. Feast knows the
time of each online value, so the offline store is asked twice: for now, and for that time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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
from airflow_mcp.work.features.historical import FEAST_TIME
from airflow_mcp.work.features.store import Store
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
State = Literal["equal", "stale", "skewed", "missing", "absent"]


class _Values(NamedTuple):
    """The values of one feature, in the order of the keys."""

    online: Sequence[Any]
    times: Sequence[float]
    """Seconds since the epoch; 0 without a value."""
    now: Sequence[Any]
    then: Sequence[Any]


def compare_features(request: SkewRequest) -> SkewSummary:
    """Compare a sample of the online values.

    :param request: the feature store, entity keys, features and policy.
    :raises DatasetError: when the entity keys, the store or a feature cannot be used.
    :raises FailedError: when a store does not answer.
    """
    store = Store(request)
    rows, used = load_dataset(request.entities)
    keys = rows.drop_duplicates().reset_index(drop=True)
    if keys.empty:
        raise DatasetError("the entity rows have no key. Nothing was compared")
    if len(keys) > request.policy.sample_rows:
        keys = keys.sample(request.policy.sample_rows, random_state=request.policy.seed).reset_index(drop=True)
    as_of, names = request.as_of or datetime.now(UTC), _keys(keys)
    found = []
    for view, features in _by_view(store.features).items():
        values = _read(store, keys, features, as_of.timestamp())
        found += [_compare(f"{view}:{name}", each, names, request.policy, as_of) for name, each in values.items()]
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


def _by_view(features: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Group features by their view: all values of a view have one time."""
    views: dict[str, tuple[str, ...]] = {}
    for feature in features:
        view = feature.partition(":")[0]
        views[view] = (*views.get(view, ()), feature)
    return views


def _read(store: Store, keys: pd.DataFrame, features: tuple[str, ...], as_of: float) -> dict[str, _Values]:
    names = [feature.partition(":")[2] for feature in features]
    online: dict[str, list[Any]] = {}
    records = [{str(name): plain_label(value) for name, value in row.items()} for row in keys.to_dict("records")]
    for start in range(0, len(records), ONLINE_AT_ONCE):
        for column, values in store.online(records[start : start + ONLINE_AT_ONCE], features).items():
            online.setdefault(column, []).extend(values)
    now = store.historical(_at(keys, [as_of] * len(keys)), features)
    # One time per key and view: that of its values online; keys without one get the time of the check.
    known = [max(float(online[f"{name}__ts"][row] or 0) for name in names) for row in range(len(keys))]
    then = store.historical(_at(keys, [(at or as_of) + (_WITHIN_SECOND if at else 0) for at in known]), features)
    return {name: _Values(online[name], known, now[name].tolist(), then[name].tolist()) for name in names}


def _at(keys: pd.DataFrame, seconds: Sequence[float]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415

    return keys.assign(**{FEAST_TIME: pd.to_datetime(list(seconds), unit="s", utc=True).round("us")})


def _compare(feature: str, values: _Values, names: Sequence[str], policy: SkewPolicy, as_of: datetime) -> FeatureSkew:
    states = [
        _state(online, at, now, then, policy)
        for online, at, now, then in zip(values.online, values.times, values.now, values.then, strict=True)
    ]
    counted = Counter(states)
    counts = {name: counted[name] for name in ("equal", "stale", "skewed", "missing")}
    verdict, reason = judge_feature({str(name): number for name, number in counts.items()}, policy)
    ages = [as_of.timestamp() - at for at, state in zip(values.times, states, strict=True) if state == "stale"]
    return FeatureSkew(
        feature=feature,
        **counts,
        absent=counted["absent"],
        oldest_seconds=max(ages, default=None),
        verdict=verdict,
        reason=reason,
        examples=_examples(values, states, names),
    )


def _state(online: Any, at: float, now: Any, then: Any, policy: SkewPolicy) -> State:
    if _is_missing(online):
        return "absent" if _is_missing(now) else "missing"
    if _are_equal(online, now, policy.tolerance):
        return "equal"
    return "stale" if at and _are_equal(online, then, policy.tolerance) else "skewed"


def _examples(values: _Values, states: Sequence[State], names: Sequence[str]) -> tuple[SkewExample, ...]:
    kept: list[SkewExample] = []
    for state in ("skewed", "missing", "stale"):
        rows = [row for row, each in enumerate(states) if each == state][: EXAMPLES - len(kept)]
        kept += [
            SkewExample(
                key=names[row],
                state=state,
                online=_text(values.online[row]),
                offline=_text(values.now[row]),
                offline_then=_text(values.then[row]) if values.times[row] else "",
                online_at=datetime.fromtimestamp(values.times[row], UTC).isoformat() if values.times[row] else "",
            )
            for row in rows
        ]
    return tuple(kept)


def _keys(keys: pd.DataFrame) -> list[str]:
    return [", ".join(f"{name}={value}" for name, value in row.items()) for row in keys.to_dict("records")]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _are_equal(one: Any, other: Any, tolerance: float) -> bool:
    one, other = plain_label(one), plain_label(other)
    if _is_missing(one) or _is_missing(other):
        return _is_missing(one) and _is_missing(other)
    are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    if are_numbers and (isinstance(one, float) or isinstance(other, float)):
        return math.isclose(one, other, rel_tol=tolerance)
    try:
        return bool(one == other)
    except ValueError:  # arrays
        return list(one) == list(other)


def _text(value: Any) -> str:
    return "missing" if _is_missing(value) else str(value)[:100]
