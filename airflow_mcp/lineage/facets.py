"""OpenLineage facets of the operators. Only Airflow's OpenLineage provider, which this needs, leads to its import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import attr
from airflow.providers.openlineage.extractors.base import OperatorLineage
from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.generated import base as facet_bases
from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet

from airflow_mcp import __version__
from airflow_mcp.lineage.tasks import FinishedTask, LineageDataset, lineage_of

PRODUCER = f"https://github.com/airflow-mcp/airflow-mcp/tree/v{__version__}"
SCHEMAS = f"https://raw.githubusercontent.com/airflow-mcp/airflow-mcp/v{__version__}/docs/lineage"
"""Where the JSON schemas of our facets are."""
PREFIX = "airflow_mcp_"
"""Begins the key of every facet that OpenLineage does not define itself."""


def operator_lineage(classes: Iterable[str], task: FinishedTask) -> OperatorLineage[Any, Any] | None:
    """Return what a task read and wrote, as the provider wants it.

    :param classes: name of the operator class, and of the classes that it inherits from.
    :param task: its arguments and outcome.
    :return: None for an operator without lineage.
    """
    found = lineage_of(classes, task)
    if found is None:
        return None
    return OperatorLineage(
        inputs=[InputDataset(each.namespace, each.name, facets=_facets(each)) for each in found.inputs],
        outputs=[OutputDataset(each.namespace, each.name, facets=_facets(each)) for each in found.outputs],
        run_facets={PREFIX + name: _facet(name, "RunFacet", values) for name, values in found.facts.items()},
    )


def _facets(dataset: LineageDataset) -> dict[str, Any]:
    facets: dict[str, Any] = {}
    if dataset.version:
        facets["version"] = DatasetVersionDatasetFacet(dataset.version, producer=PRODUCER)
    if dataset.model:
        facets[f"{PREFIX}modelVersion"] = _facet("modelVersion", "DatasetFacet", dataset.model)
    return facets


def _facet(name: str, base: str, values: Mapping[str, Any]) -> Any:
    return _facet_class(name, base)(producer=PRODUCER).with_additional_properties(**values)


@cache
def _facet_class(name: str, base: str) -> Any:
    """Return the class of a facet, which differs from its base only by the address of its schema."""
    title = f"{name[0].upper()}{name[1:]}{base}"
    address = f"{SCHEMAS}/{title}.json#/$defs/{title}"
    made = type(title, (getattr(facet_bases, base),), {"_get_schema": staticmethod(lambda: address)})
    return attr.define(made)
