"""The part of Airflow's REST API that approvals read, with Dag runs, questions and answers in memory.

What the real one does is tried in ``tests/integration/test_approvals_airflow.py``; here days pass in a test.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
from airflow.sdk.execution_time.comms import CreateHITLDetailPayload

from tests.support.task_harness import FakeSupervisor


class FakeQuestions:
    """One Dag run, whose tasks ask people.

    :param supervisor: what the tasks talk to.
    :param account: who triggered the run.
    """

    def __init__(self, supervisor: FakeSupervisor, account: str = "dora") -> None:
        self.supervisor, self.account = supervisor, account
        self.answers: dict[str, dict[str, Any]] = {}
        """By task."""
        self._asked_before: dict[str, int] = {}
        """How often a task had asked when it was answered: asking again erases the answer, as in Airflow."""
        self.transport = httpx.MockTransport(self._answer)

    def answer(self, task_id: str, account: str, option: str = "Approve") -> None:
        """Answer a question now."""
        self._asked_before[task_id] = len(self._asked)
        self.answers[task_id] = {
            "response_received": True,
            "responded_by_user": {"id": account, "name": account},
            "chosen_options": [option],
            "responded_at": datetime.now(UTC).isoformat(),
            "params_input": {"reason": "looked at it"},
        }

    def _answer(self, request: httpx.Request) -> httpx.Response:
        parts = request.url.path.removeprefix("/api/v2/").split("/")
        if parts == ["eventLogs"]:
            return httpx.Response(200, json={"event_logs": [], "total_entries": 0})
        if len(parts) == 4:
            origin = {"triggered_by": "ui", "triggering_user_name": self.account}
            return httpx.Response(200, json={"dag_id": parts[1], "dag_run_id": parts[3], "conf": {}, **origin})
        if parts[-1] != "hitlDetails":
            return httpx.Response(200, json={"try_number": 1})
        asked = self._asked
        if not asked:
            return httpx.Response(404)
        first = asked[0]  # Airflow keeps the first question of a task for ever
        question = {"subject": first.subject, "body": first.body, "options": first.options, "assigned_users": []}
        answer = self.answers.get(parts[5], {}) if self._asked_before.get(parts[5]) == len(asked) else {}
        return httpx.Response(200, json={**question, **answer})

    @property
    def _asked(self) -> list[CreateHITLDetailPayload]:
        return [each for each in self.supervisor.sent if isinstance(each, CreateHITLDetailPayload)]
