"""Measures the windows of a quality check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_mcp.core.quality.judgement import WindowFacts, estimate_basis, find_bias, judge_window
from airflow_mcp.core.quality.policy import WindowBounds, window_name
from airflow_mcp.core.quality.summary import (
    LabelGroup,
    LabelGroups,
    QualityRequest,
    QualitySlice,
    QualityWindow,
)
from airflow_mcp.exceptions import DatasetError
from airflow_mcp.work.measures.classes import (
    AnsweredClasses,
    Array,
    Classes,
    find_classes,
    name_of,
    no_classes,
    plain_label,
)
from airflow_mcp.work.measures.scoring import ScoredModel
from airflow_mcp.work.measures.significance import metric_intervals
from airflow_mcp.work.measures.slices import measure_slices
from airflow_mcp.work.quality.logged_predictions import SEGMENT
from airflow_mcp.work.quality.performance_estimate import estimate_metrics

if TYPE_CHECKING:
    import pandas as pd

MAX_GROUPS = 20
"""Groups of a column that are looked at for bias; rarer values are one group."""
_BINS = 5
"""Groups of equal size that numeric predictions are put into."""
_OTHERS = "(other)"
_NOBODY: Any = None
"""The model of logged answers: it is never asked again."""


class WindowMeasures:
    """The labelled predictions of a check, measured window by window.

    :param request: model type, segments, policy and baseline.
    :param frame: predictions with a column ``label``.
    :param counts_outliers: whether the column ``is_outlier`` means anything.
    :raises DatasetError: when labels or predictions are not of the kind that the model type needs.
    """

    def __init__(self, request: QualityRequest, frame: pd.DataFrame, *, counts_outliers: bool) -> None:
        label = frame["label"].where(frame["prediction"].notna(), None)  # without an answer there is nothing to judge
        self._request, self._frame = request, frame.assign(label=label)
        self._counts_outliers = counts_outliers
        self._classes = self._find_classes() if request.model_type == "classifier" else None
        known = 0 if self._classes is None else len(self._classes.labels)
        self.basis = estimate_basis(known, request.probability, request.baseline, request.policy)
        """Whether quality may be estimated without labels."""

    def measure(self, bounds: WindowBounds) -> QualityWindow:
        """Measure and, if its label delay has passed, judge one window.

        :param bounds: the window.
        """
        at, policy = self._frame["at"], self._request.policy
        inside = (at >= bounds.start.timestamp()) & (at < bounds.end.timestamp())
        frame = self._frame[inside].reset_index(drop=True)
        labelled = frame["label"].notna().to_numpy()
        groups = self._label_groups(frame, labelled)
        scored = self._scored(frame[labelled].reset_index(drop=True)) if labelled.any() else None
        measured = scored.measure() if scored is not None else None
        metrics = measured.metrics if measured else {}
        facts = WindowFacts(
            rows=len(frame),
            labelled=int(labelled.sum()),
            versions={str(name): int(rows) for name, rows in frame["version"].value_counts().sort_index().items()},
            metrics=metrics,
            undefined=measured.undefined if measured else {},
            intervals=metric_intervals(scored, tuple(metrics)) if scored is not None else {},
            label_groups=groups,
        )
        judged = judge_window(facts, policy, self._request.baseline) if bounds.is_due else None
        return QualityWindow(
            name=window_name(bounds.start, policy.window),
            start=bounds.start,
            end=bounds.end,
            is_due=bounds.is_due,
            verdict=judged.verdict if judged else None,
            reason=judged.reason
            if judged
            else f"waits for labels until {bounds.end + policy.label_delay:%Y-%m-%d %H:%M}",
            limits=judged.limits if judged else (),
            slices=self._slices(frame[labelled].reset_index(drop=True), scored),
            estimated=self._estimated(frame),
            outlier_rows=int(frame["is_outlier"].sum()) if self._counts_outliers else None,
            **{**facts._asdict(), "label_groups": tuple(groups)},
        )

    # --- what is measured --------------------------------------------------------------------------------------------

    def _find_classes(self) -> Classes | None:
        """Return the classes of all labels and predictions; None when there is no label and they are not known."""
        labels = [value for value in self._frame["label"] if value is not None]
        predictions = [value for value in self._frame["prediction"] if value is not None]
        if wrong := no_classes(labels):
            raise DatasetError(
                f"the labels have {wrong}, which cannot be classes: they are texts, whole numbers, true and false. For "
                "numbers, use model_type='regressor'. Nothing was judged"
            )
        if wrong := no_classes(predictions):
            raise DatasetError(
                f"the logged predictions are {wrong}, which cannot be classes. For numbers, use "
                "model_type='regressor'. Nothing was judged"
            )
        if not predictions:
            return None
        # Labels of one class may come first, while every answer is the other: so of labels only the type must fit.
        kinds = set(map(_kind, predictions))
        alike = [label for label in labels if _kind(label) in kinds]
        answered = AnsweredClasses("in the prediction log", [*predictions, *alike])
        return find_classes(labels or predictions, [answered], self._request.positive_label)

    def _scored(self, frame: pd.DataFrame) -> ScoredModel:
        if self._classes is None:
            return ScoredModel(
                _NOBODY, None, _numbers(frame["label"], "labels"), _numbers(frame["prediction"], "predictions")
            )
        true, predicted = self._classes.encode(frame["label"]), self._classes.encode(frame["prediction"])
        probabilities = self._probabilities(frame, predicted)
        why_not = "" if probabilities is not None else "the log has no probability of the positive class for every row"
        return ScoredModel(_NOBODY, None, true, predicted, self._classes, probabilities, why_not)

    def _probabilities(self, frame: pd.DataFrame, predicted: Array) -> Array | None:
        """Return the probabilities of both classes; None when they are not known for every row."""
        classes, given = self._classes, frame["probability"].to_numpy(dtype=float)
        if classes is None or classes.positive is None or not self._request.probability:
            return None
        if not ((given >= 0) & (given <= 1)).all():
            return None
        if self._request.probability == "predicted":
            given = np.where(predicted == classes.positive, given, 1 - given)
        both = np.stack([1 - given, given], axis=1)
        return both if classes.positive == 1 else both[:, ::-1]

    def _slices(self, frame: pd.DataFrame, scored: ScoredModel | None) -> tuple[QualitySlice, ...]:
        if scored is None:
            return ()
        named = frame.rename(columns={SEGMENT + name: name for name in self._request.segments})
        return tuple(
            QualitySlice(
                column=part.column, value=part.value, rows=part.rows, metrics=part.candidate, intervals=part.intervals
            )
            for part in measure_slices(named, self._request.segments, scored, None)
        )

    def _estimated(self, frame: pd.DataFrame) -> dict[str, float]:
        if not self.basis.is_allowed or self._classes is None or not len(frame):
            return {}
        predicted = self._classes.encode(frame["prediction"])
        probabilities, positive = self._probabilities(frame, predicted), self._classes.positive
        if probabilities is None or positive is None:
            return {}
        return estimate_metrics(probabilities[:, positive], predicted == positive)

    # --- whether labels are biased -----------------------------------------------------------------------------------

    def _label_groups(self, frame: pd.DataFrame, labelled: Array) -> list[LabelGroups]:
        """Return how many predictions are labelled, by prediction and by segment; nothing when all or none are."""
        if not labelled.any() or labelled.all():
            return []
        predictions = frame["prediction"]
        texts = _bins(predictions) if self._classes is None else predictions.map(name_of)
        columns = {"prediction": texts}
        columns |= {name: frame[SEGMENT + name].map(name_of) for name in self._request.segments}
        return [self._groups_of(column, values, labelled) for column, values in columns.items()]

    def _groups_of(self, column: str, values: pd.Series[Any], labelled: Array) -> LabelGroups:
        common = set(values.value_counts().index[:MAX_GROUPS])
        grouped = values.where(values.isin(common), _OTHERS)
        groups = [
            LabelGroup(value=str(value), rows=len(rows), labelled=int(labelled[rows].sum()))
            for value, rows in sorted(
                grouped.groupby(grouped).indices.items(), key=lambda item: (-len(item[1]), item[0])
            )
        ]
        return find_bias(column, groups, _p_value(groups), self._request.policy)


def _kind(value: Any) -> type:
    """Return the type of a class; true and false are the numbers 1 and 0."""
    plain = plain_label(value)
    return int if isinstance(plain, bool) else type(plain)


def _p_value(groups: list[LabelGroup]) -> float | None:
    """Return the p-value of Pearson's chi-squared test of homogeneity."""
    from scipy.stats import chi2_contingency  # noqa: PLC0415

    if len(groups) < 2:
        return None
    table = np.array([[group.labelled, group.rows - group.labelled] for group in groups])
    return float(chi2_contingency(table).pvalue)


def _numbers(values: pd.Series[Any], what: str) -> Array:
    """Return finite numbers.

    :raises DatasetError: when a value is none.
    """
    try:
        numbers = np.asarray([float(plain_label(value)) for value in values], dtype=float)
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if not np.isfinite(numbers).all():
        raise DatasetError(
            f"the {what} must be finite numbers for model_type='regressor'; got other values. Nothing was judged"
        )
    return numbers


def _bins(values: pd.Series[Any]) -> pd.Series[Any]:
    import pandas as pd  # noqa: PLC0415

    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    return pd.qcut(numbers.where(np.isfinite(numbers)), _BINS, duplicates="drop").astype(str)
