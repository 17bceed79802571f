"""What the routes do: choose the version, read the body as it understands it, ask it, write the answer."""

from __future__ import annotations

from random import randbytes
from typing import Protocol

import msgspec

from airflow_mcp.core.serving.frames import AnswerKind
from airflow_mcp.core.serving.inference_v2 import outputs_of
from airflow_mcp.core.serving.scoring import UnreadableRequestError
from airflow_mcp.core.serving.traffic import HEADER_ALIAS, HEADER_VERSION, Choice, RoutingKey, TrafficPlan, routing_key
from airflow_mcp.core.serving.versions import ServedVersion
from airflow_mcp.serving.errors import Problem
from airflow_mcp.serving.exchange import Exchange
from airflow_mcp.serving.models import ServedModels
from airflow_mcp.serving.pool import ModelAnswer, ModelPool

_RETRY_AFTER = 1
_VERSION, _ALIAS = HEADER_VERSION.encode(), HEADER_ALIAS.encode()


class Admission(Protocol):
    """Decides whether a caller may ask at all."""

    def admit(self, exchange: Exchange) -> Problem | None:
        """Return why not; None admits the caller, whose subject is then in the exchange."""
        ...


class Handlers:
    """The scoring routes without their transport.

    :param models: what is loaded.
    :param default_model: the model that ``/invocations`` asks; empty when there is none.
    """

    def __init__(self, models: ServedModels, default_model: str) -> None:
        self._models = models
        self._default_model = default_model
        self._ends: dict[Choice, bytes] = {}

    async def invocations(self, exchange: Exchange, body: bytes, content_type: str) -> bytes:
        """Answer a request of MLflow's scoring protocol.

        :return: the body of the answer.
        :raises Problem: when there is no answer.
        """
        if not self._default_model:
            raise Problem("unknown_model", "this server has several models; ask one by `/v2/models/NAME/infer`")
        answer = await self._ask(exchange, self._default_model, "", body, content_type)
        if answer.kind is AnswerKind.UNWRAPPED:
            return answer.json
        identity = msgspec.json.encode(exchange.request_id.decode())
        return b"".join((b'{"predictions":', answer.json, self._end(exchange), identity, b"}"))

    async def infer(self, exchange: Exchange, model: str, version: str, body: bytes) -> bytes:
        """Answer a request of the Open Inference Protocol.

        :param version: the version that the path names; empty for whichever the plan says.
        """
        answer = await self._ask(exchange, model, version, body, "")
        request, choice = exchange.request, exchange.choice
        inference = None if request is None else request.inference
        if inference is None and answer.kind is AnswerKind.UNWRAPPED:
            return answer.json  # of a server elsewhere, which speaks this protocol by itself
        try:
            outputs = outputs_of(answer.values, () if inference is None else inference.outputs)
        except UnreadableRequestError as error:
            raise Problem(error.code, str(error)) from None
        document = {
            "model_name": model,
            "model_version": "" if choice is None else choice.version.version,
            "id": (inference.id if inference else "") or exchange.request_id.decode(),
            "outputs": outputs,
        }
        return msgspec.json.encode(document)

    async def _ask(self, exchange: Exchange, model: str, version: str, body: bytes, content_type: str) -> ModelAnswer:
        exchange.model = model
        usual = self._models.usual.get(model)
        headers = exchange.headers
        if usual is not None and not (version or headers.raw(_VERSION) or headers.raw(_ALIAS)):
            return await self._submit(exchange, *usual, body, content_type)
        plan = self._models.plan(model)
        if plan is None:
            raise Problem("unknown_model", "this server does not serve a model of this name")
        key = self._key(exchange, model, plan, version)
        choice = self._choose(plan, key)
        pools = self._models.pools
        try:
            return await self._submit(exchange, choice, pools[choice.version], body, content_type)
        except Problem as problem:
            if problem.code != "not_ready" or choice.role != "canary":
                raise
        # The canary ended with requests in its queue: the champion answers them.
        exchange.lost = choice.version
        choice = self._choose(plan, key, without=choice.version)
        return await self._submit(exchange, choice, pools[choice.version], body, content_type)

    def _key(self, exchange: Exchange, model: str, plan: TrafficPlan, version: str) -> RoutingKey:
        if version:
            return RoutingKey(model, version=version)
        chance = randbytes(8)  # noqa: S311  (not a secret)
        return routing_key(model, plan, exchange.headers, subject=exchange.subject, chance=chance)

    def _choose(self, plan: TrafficPlan, key: RoutingKey, without: ServedVersion | None = None) -> Choice:
        choice = self._models.choose(key, without=without)
        if choice is not None:
            return choice
        champion = plan.champion
        if key.version and champion is not None and key.version == champion.version and champion in self._models.ready:
            return Choice(champion, "champion")  # by its number, where callers may not choose another
        if key.is_forced:
            raise Problem("unknown_version", "this server does not hold that version, or it is not ready")
        raise Problem("not_ready", f"no model yet: {self._models.why_not(key.model)}", retry_after=_RETRY_AFTER)

    async def _submit(
        self, exchange: Exchange, choice: Choice, pool: ModelPool, body: bytes, content_type: str
    ) -> ModelAnswer:
        exchange.choice = choice
        decoder = pool.decoder
        exchange.request = request = decoder.invocations(body, content_type) if content_type else decoder.infer(body)
        request.request_id = exchange.request_id
        exchange.answer = answer = await pool.submit(request)
        return answer

    def _end(self, exchange: Exchange) -> bytes:
        """Return what follows the predictions, up to the identity of the request."""
        choice = exchange.choice
        if choice is None:
            return b',"request_id":'
        end = self._ends.get(choice)
        if end is None:
            version = choice.version
            named = msgspec.json.encode({"name": version.model, "version": version.version})
            end = self._ends[choice] = b',"model":' + named + b',"request_id":'
        return end


def version_headers(choice: Choice) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that name the version of an answer and its role."""
    return (
        (b"x-model-version", choice.version.version.encode()),
        (b"x-model-role", choice.role.encode()),
    )
