"""The policy of retraining: reasons, and limits on how often."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from airflow_mcp.core.retrain.documents import WindowKind
from airflow_mcp.exceptions import InvalidArgumentError

MAX_WINDOWS = 20
"""Maximum of ``window_count``; the ledger keeps a few more."""
MAX_BUDGET = 20
"""Maximum of a budget; the ledger keeps as many trainings."""


@dataclass(frozen=True)
class RetrainPolicy:
    """Reasons to retrain, and objections to them. None switches a rule off."""

    on_drift: bool = True
    on_quality: bool = False
    """Retrain when a quality check finds that the model has degraded."""
    violations: int = 1
    """Drift is a reason when this many of the last ``window_count`` windows drifted, including the newest; degradation
    in the same way."""
    window_count: int = 1
    label_delay: timedelta = timedelta(0)
    """A drift verdict counts only if it was given this long after the end of its window, after its labels had arrived.
    A quality check has a label delay of its own."""
    max_model_age: timedelta | None = None
    """Retrain when the champion is older than this, counted from its registration or the last challenger it beat."""
    retrain_every: timedelta | None = None
    """Retrain when the latest training started longer ago than this."""
    cooldown: timedelta = timedelta(hours=6)
    """Do not trigger within this time after the start of the latest training."""
    daily_budget: int | None = 4
    """Maximum of retrains triggered within any 24 hours."""
    weekly_budget: int | None = 14
    """Maximum of retrains triggered within any 7 days."""
    max_rejections: int | None = 3
    """After this many rejected challengers in a row, nothing is triggered until a person resumes."""
    min_new_rows: int | None = None
    """Fewer new rows since the last training than this: not yet."""
    min_new_labels: int | None = None
    """Fewer new labels since the last training than this: not yet."""

    def __post_init__(self) -> None:
        """Check that the policy can retrain and every value is in range; list every problem."""
        problems = [*self._wrong_times(), *self._wrong_numbers()]
        if not (self.on_drift or self.on_quality or self.max_model_age or self.retrain_every):
            problems.append(
                "the retrain policy has no reason to retrain: set on_drift=True, on_quality=True, max_model_age or "
                "retrain_every"
            )
        if problems:
            raise InvalidArgumentError("; ".join(problems))

    @property
    def kinds(self) -> tuple[WindowKind, ...]:
        """The checks whose verdicts are a reason to retrain."""
        asked: dict[WindowKind, bool] = {"drift": self.on_drift, "quality": self.on_quality}
        return tuple(kind for kind, is_asked in asked.items() if is_asked)

    def _wrong_times(self) -> list[str]:
        problems = []
        for name in ("max_model_age", "retrain_every"):
            value = getattr(self, name)
            if value is not None and value <= timedelta(0):
                problems.append(f"{name} must be longer than zero; got {value!r}")
        for name in ("cooldown", "label_delay"):
            value = getattr(self, name)
            if value < timedelta(0):
                problems.append(f"{name} must be zero or longer; got {value!r}")
        return problems

    def _wrong_numbers(self) -> list[str]:
        limits = {
            "violations": self.window_count,
            "window_count": MAX_WINDOWS,
            "daily_budget": MAX_BUDGET,
            "weekly_budget": MAX_BUDGET,
            "max_rejections": None,
            "min_new_rows": None,
            "min_new_labels": None,
        }
        problems = []
        for name, most in limits.items():
            value = getattr(self, name)
            if value is None and name not in ("violations", "window_count"):
                continue
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or value < 1 or (most is not None and value > most):
                limit = "" if most is None else f" to {most}"
                problems.append(f"{name} must be a whole number from 1{limit}; got {value!r}")
        return problems
