"""Which rows of the model server's prediction log are read: those of one answer per request."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator

from airflow_mcp.core.data.pin import DatasetPin

LogRole: TypeAlias = Literal["champion", "standby", "canary", "forced", "shadow"]
"""In which role a version answered. A shadow is asked what the champion has answered, so its rows are copies."""


def _require_one_row_per_request(roles: tuple[LogRole, ...]) -> tuple[LogRole, ...]:
    if not roles:
        raise ValueError("name at least one role")
    if "shadow" in roles and len(roles) > 1:
        others = ", ".join(role for role in roles if role != "shadow")
        raise ValueError(
            f"shadow must be the only role; got {others} beside it. Its rows are copies of the champion's requests"
        )
    return roles


LogRoles: TypeAlias = Annotated[tuple[LogRole, ...], AfterValidator(_require_one_row_per_request)]
"""Roles whose rows are read."""
CHAMPION_ROLES: tuple[LogRole, ...] = ("champion", "standby")
"""The champion, and the version that answers in its place."""


class LoggedRequests(DatasetPin):
    """A prediction log of which only some rows are read."""

    column: str
    """Column with the role."""
    roles: LogRoles
    """Roles whose rows are read."""

    @property
    def pin(self) -> DatasetPin:
        """The log as it is recorded."""
        return DatasetPin(uri=self.uri)
