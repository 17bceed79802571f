"""Post a message to a webhook: JSON, Slack or Enterprise WeChat."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import quote

from airflow.sdk import BaseNotifier, conf
from airflow.sdk.log import redact  # type: ignore[attr-defined]

from airflow_mcp.core.notification import Notice, NoticeEvent, NoticeFormat, body_of, state_of
from airflow_mcp.exceptions import GateRejectedError, InvalidArgumentError
from airflow_mcp.notifications.delivery import WebhookDelivery

if TYPE_CHECKING:
    from airflow.sdk import Context


class WebhookNotifier(BaseNotifier):
    """Send the result of a task or a Dag run to a webhook, as ``on_failure_callback`` or another callback.

    The address comes from an Airflow connection and is never logged, because it may be secret. A message that cannot be
    delivered is logged as an error and never changes the state of a task.

    :param webhook_conn_id: Airflow connection. ``host`` is the URL; the password is a bearer token for ``json``, the
        end of the path for ``slack``, and the ``key`` for ``wecom``. Extra ``token`` is a bearer token for any of them.
    :param event: ``failure``, ``success``, or ``gateRejected``. The last is for the failure callback of a gate: it
        sends a message only when the gate rejected the candidate.
    :param format: ``json``, ``slack`` or ``wecom``.
    :param text: text instead of the default (templated); ``json`` has all facts in addition.
    :param timeout: seconds for one attempt.
    :param attempts: number of attempts; only temporary failures (no answer, 429, 5xx) are tried again.
    """

    template_fields: Sequence[str] = ("text",)
    backoff = 1.0
    """Seconds before the second attempt; doubles with each further one."""

    def __init__(
        self,
        *,
        webhook_conn_id: str,
        event: NoticeEvent = "failure",
        format: NoticeFormat = "json",
        text: str = "",
        timeout: float = 10.0,
        attempts: int = 3,
    ) -> None:
        super().__init__()
        self.webhook_conn_id = webhook_conn_id
        self.event = event
        self.format = format
        self.text = text
        self.timeout = timeout
        self.attempts = attempts
        for name, value, allowed in (("event", event, NoticeEvent), ("format", format, NoticeFormat)):
            if value not in get_args(allowed):
                raise InvalidArgumentError(f"{name} must be one of {', '.join(get_args(allowed))}; got {value!r}")
        if not webhook_conn_id or timeout <= 0 or attempts < 1:
            raise InvalidArgumentError(
                "webhook_conn_id must not be empty, timeout must be above 0 and attempts at least 1; got "
                f"{webhook_conn_id!r}, {timeout!r}, {attempts!r}"
            )

    def __call__(self, *args: Any) -> None:
        """Send the message; log any error."""
        try:
            super().__call__(*args)
        except Exception as error:  # a text that cannot be rendered
            self._give_up(error)

    def __await__(self) -> Generator[Any, Any, None]:
        """Send the message without blocking; log any error."""
        try:
            yield from super().__await__()
        except Exception as error:
            self._give_up(error)

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Render the text, if there is one: Airflow calls some callbacks with a context that cannot render."""
        if self.text:
            super().render_template_fields(context, jinja_env)

    def notify(self, context: Context) -> None:
        """Send the message; blocks.

        :param context: context of the task, or of the Dag run, that has ended.
        """
        if not self._is_asked(context):
            return
        try:
            self._delivery().send(self._body(context))
            self.log.info("Sent to connection %r: %s", self.webhook_conn_id, self.event)
        except Exception as error:  # a message must never change the state of its task
            self._give_up(error)

    async def async_notify(self, context: Context) -> None:
        """Send the message without blocking the event loop.

        :param context: as for :meth:`notify`.
        """
        if not self._is_asked(context):
            return
        try:
            await self._delivery().asend(self._body(context))
            self.log.info("Sent to connection %r: %s", self.webhook_conn_id, self.event)
        except Exception as error:
            self._give_up(error)

    def _is_asked(self, context: Context) -> bool:
        if self.event != "gateRejected":
            return True
        error = context.get("exception")
        causes = (error, getattr(error, "__cause__", None))
        return any(isinstance(cause, GateRejectedError) for cause in causes)

    def _give_up(self, error: Exception) -> None:
        self.log.error("The message to connection %r was not delivered: %s", self.webhook_conn_id, redact(str(error)))

    def _delivery(self) -> WebhookDelivery:
        return WebhookDelivery(
            self.webhook_conn_id, self.format, timeout=self.timeout, attempts=self.attempts, backoff=self.backoff
        )

    def _body(self, context: Context) -> dict[str, Any]:
        return body_of(_notice(self.event, context), str(redact(self.text)), self.format)


def _notice(event: NoticeEvent, context: Context) -> Notice:
    """Collect the facts. The context of a Dag run has a reason, and fewer facts than that of a task."""
    instance: Any = context.get("ti")
    dag = context.get("dag")
    dag_run_reason = context.get("reason")
    is_task = instance is not None and dag_run_reason is None
    error = context.get("exception")
    dag_id = str(getattr(dag, "dag_id", "") or getattr(instance, "dag_id", ""))
    run_id = str(context.get("run_id") or getattr(instance, "run_id", ""))
    return Notice(
        event=event,
        dag_id=dag_id,
        run_id=run_id,
        task_id=str(instance.task_id) if is_task else "",
        state=state_of(event),
        reason=str(redact(str(error or dag_run_reason or ""))),
        url=str(instance.log_url) if is_task else _run_url(dag_id, run_id),
    )


def _run_url(dag_id: str, run_id: str) -> str:
    base = conf.get("api", "base_url", fallback="http://localhost:8080/").rstrip("/")
    return f"{base}/dags/{quote(dag_id)}/runs/{quote(run_id)}"
