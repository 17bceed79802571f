"""Base of the operators that ask a Feast feature store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from airflow_mcp.core.argument import problems_of, required_text
from airflow_mcp.core.data.dataset import data_tags, dataset_pin
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.features.summary import FeatureRequest
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.operators.check import CheckOperator, SummaryT

RequestT = TypeVar("RequestT", bound=FeatureRequest)


class FeatureStoreOperator(CheckOperator[RequestT, SummaryT]):
    """Base of the operators that ask a Feast feature store.

    :param feature_repo: folder with ``feature_store.yaml``, where the work plane runs (templated).
    :param entities: pinned table of entity keys, ``{uri, version, hash}`` (templated).
    :param features: features as ``<feature view>:<feature>`` (templated).
    :param feature_service: feature service instead of ``features`` (templated).
    """

    template_fields: Sequence[str] = (
        *CheckOperator.template_fields,
        "feature_repo",
        "entities",
        "features",
        "feature_service",
    )
    ui_color = "#dcefe0"
    concerns = "features"

    def __init__(
        self,
        *,
        feature_repo: str,
        entities: Any,
        features: Sequence[str] = (),
        feature_service: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.feature_repo = feature_repo
        self.entities = entities
        self.features = features
        self.feature_service = feature_service

    def read_data(self, request: RequestT) -> tuple[DatasetPin, ...]:
        """Return the entity rows, whose credentials the step needs."""
        return (request.entities,)

    def data_tags(self, request: RequestT) -> Mapping[str, str]:
        """Return the tags that name the entity rows."""
        return data_tags(request.entities)

    def request_of(self, model: type[RequestT], **further: Any) -> RequestT:
        """Return the request with the arguments that both operators have.

        :param model: class of the request.
        :param further: its other fields.
        :raises InvalidArgumentError: listing every problem.
        """
        try:
            return model(
                model_name=required_text("model_name", self.model_name),
                feature_repo=required_text("feature_repo", self.feature_repo),
                features=tuple(self.features),
                feature_service=self.feature_service,
                entities=dataset_pin("entities", self.entities),
                **further,
            )
        except ValidationError as error:
            raise InvalidArgumentError(problems_of(error, "arguments", model, then="Nothing was read")) from None
