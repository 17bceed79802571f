"""MLflow's REST API for the model registry, as descriptions without any I/O.

The rest of the API is in :mod:`airflow_mcp.mlflow_client.api`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import get_args

from airflow_mcp.core.mlflow_entities import ModelVersion, RegisteredModel, Stage
from airflow_mcp.exceptions import InvalidArgumentError, MlflowAuthError, MlflowError, MlflowNotFoundError
from airflow_mcp.mlflow_client import answers
from airflow_mcp.mlflow_client.api import API, NOTHING, filter_value, key_values, require
from airflow_mcp.mlflow_client.paging import paged
from airflow_mcp.mlflow_client.wire import MlflowRequest, MlflowResponse, Operation

FEW_VERSIONS = 3
"""Up to this many versions are read one by one."""
LISTED_PER_VERSION = 100
"""A listing replaces reading one by one, up to this many listed versions for each wanted one."""
NEWEST_VERSIONS = 100
"""Number of newest versions that are searched for one that is ready."""
MAX_NAMES_IN_FILTER = 50
MAX_FILTER_CHARACTERS = 2500
"""A filter is part of the URL, which servers limit to a few thousand characters; a longer one becomes several."""
_ALIAS = re.compile(r"[\w-]{1,255}\Z")
_RESERVED_ALIAS = re.compile(r"(latest|v\d+)\Z", re.IGNORECASE)


def create_registered_model(
    name: str, tags: Mapping[str, str] = NOTHING, description: str = ""
) -> Operation[RegisteredModel]:
    """Create a registered model. It is never repeated automatically: a lost answer would look like a conflict.

    :param name: name of the model, without ``/`` and ``:``.
    :param tags: tags to create it with.
    :param description: text for people.
    :return: the registered model.
    :raises MlflowConflictError: when it exists.
    """
    require("model name", name)
    body = {"name": name, "tags": key_values(tags), "description": description}
    path = f"{API}/registered-models/create"
    response = yield MlflowRequest(f"create registered model {name!r}", "POST", path, json=body, repeatable=False)
    return answers.read(response, "registered_model", answers.registered_model)


def get_registered_model(name: str) -> Operation[RegisteredModel]:
    """Return a registered model with its tags and aliases.

    :param name: name of the model.
    :return: the registered model.
    :raises MlflowNotFoundError: when there is no such model.
    """
    require("model name", name)
    path, params = f"{API}/registered-models/get", (("name", name),)
    response = yield MlflowRequest(f"get registered model {name!r}", "GET", path, params=params)
    return answers.read(response, "registered_model", answers.registered_model)


def search_registered_models(
    filter: str = "",
    max_results: int | None = None,
    page_size: int | None = None,
    enough: Callable[[list[RegisteredModel]], bool] | None = None,
) -> Operation[list[RegisteredModel]]:
    """Return registered models with their tags and aliases, paging through the answers.

    :param filter: MLflow's filter, for example ``name LIKE 'fraud%'``; empty means all.
    :param max_results: number of models after which to stop; None means all.
    :param page_size: models in one answer, 1000 by default; smaller answers are parsed in shorter steps.
    :param enough: asked after each page with all models so far; true stops before the end.
    :return: the models, by name.
    :raises InvalidArgumentError: for ``max_results`` below 1.
    """

    def page(size: int, token: str) -> MlflowRequest:
        params = [("filter", filter)] if filter else []
        params.append(("max_results", str(size)))
        if token:
            params.append(("page_token", token))
        what = f"search registered models with filter {filter!r}"
        return MlflowRequest(what, "GET", f"{API}/registered-models/search", params=tuple(params))

    def read(answer: MlflowResponse) -> list[RegisteredModel]:
        return answers.read_all(answer, "registered_models", answers.registered_model)

    return (yield from paged(page, read, max_results, enough, page_size=page_size))


def set_registered_model_tag(name: str, key: str, value: str) -> Operation[None]:
    """Set one tag of a registered model, replacing its value.

    :param name: name of the model.
    :param key: name of the tag.
    :param value: its value.
    :raises MlflowNotFoundError: when there is no such model.
    """
    require("model name", name)
    require("tag key", key)
    body = {"name": name, "key": key, "value": value}
    what = f"set tag {key!r} of registered model {name!r}"
    yield MlflowRequest(what, "POST", f"{API}/registered-models/set-tag", json=body)


def delete_registered_model_tag(name: str, key: str) -> Operation[None]:
    """Delete one tag of a registered model; a missing tag is not an error.

    :param name: name of the model.
    :param key: name of the tag.
    :raises MlflowNotFoundError: when there is no such model.
    """
    require("model name", name)
    require("tag key", key)
    what, path = f"delete tag {key!r} of registered model {name!r}", f"{API}/registered-models/delete-tag"
    yield from _delete_from_model(name, MlflowRequest(what, "DELETE", path, json={"name": name, "key": key}))


def create_model_version(
    name: str,
    source: str,
    run_id: str = "",
    model_id: str = "",
    tags: Mapping[str, str] = NOTHING,
    description: str = "",
) -> Operation[ModelVersion]:
    """Create the next version of a registered model. It is never repeated automatically: that might create two.

    :param name: name of the model, which must exist.
    :param source: where its files are: ``models:/<model_id>``, or an artifact URI inside ``run_id``'s artifacts.
    :param run_id: run that made it; empty leaves it unset.
    :param model_id: logged model that it is; empty takes it from a source ``models:/<model_id>``, because the
        server refuses such a source without it.
    :param tags: tags to create it with.
    :param description: text for people.
    :return: the model version.
    :raises MlflowNotFoundError: when there is no such model.
    """
    require("model name", name)
    require("source", source)
    model_id = model_id or answers.logged_model_id(source)
    optional = {"run_id": run_id, "model_id": model_id, "description": description}
    body = {"name": name, "source": source, "tags": key_values(tags)}
    body |= {key: value for key, value in optional.items() if value}
    what = f"create a version of model {name!r} from {source!r}"
    path = f"{API}/model-versions/create"
    response = yield MlflowRequest(what, "POST", path, json=body, repeatable=False)
    return answers.read(response, "model_version", answers.model_version)


def get_model_version(name: str, version: str) -> Operation[ModelVersion]:
    """Return a version of a registered model with its tags and aliases.

    :param name: name of the model.
    :param version: its number, as text.
    :return: the model version.
    :raises MlflowNotFoundError: when there is no such model or version.
    """
    _require_version(name, version)
    path, params = f"{API}/model-versions/get", (("name", name), ("version", version))
    response = yield MlflowRequest(f"get version {version} of model {name!r}", "GET", path, params=params)
    return answers.read(response, "model_version", answers.model_version)


def search_model_versions(
    filter: str, order_by: Sequence[str] = (), max_results: int | None = 1000
) -> Operation[list[ModelVersion]]:
    """Return model versions, paging through the answers.

    :param filter: MLflow's filter, for example ``name = 'fraud'``; put values into it with
        :func:`airflow_mcp.mlflow_client.api.filter_value`.
    :param order_by: for example ``("version_number DESC",)``.
    :param max_results: number of versions after which to stop, at least 1; None means all.
    :return: at most ``max_results`` versions; the server leaves their aliases out.
    :raises InvalidArgumentError: for ``max_results`` below 1.
    """

    def page(size: int, token: str) -> MlflowRequest:
        params = [("filter", filter)] if filter else []
        params += [("max_results", str(size)), *(("order_by", item) for item in order_by)]
        if token:
            params.append(("page_token", token))
        what = f"search model versions with filter {filter!r}"
        return MlflowRequest(what, "GET", f"{API}/model-versions/search", params=tuple(params))

    items = yield from paged(
        page, lambda answer: answers.read_all(answer, "model_versions", answers.model_version), max_results
    )
    return items


def set_model_version_tag(name: str, version: str, key: str, value: str) -> Operation[None]:
    """Set one tag of a model version, replacing its value.

    :param name: name of the model.
    :param version: its number, as text.
    :param key: name of the tag.
    :param value: its value.
    :raises MlflowNotFoundError: when there is no such model or version.
    """
    _require_version(name, version)
    require("tag key", key)
    body = {"name": name, "version": version, "key": key, "value": value}
    what = f"set tag {key!r} of version {version} of model {name!r}"
    yield MlflowRequest(what, "POST", f"{API}/model-versions/set-tag", json=body)


def get_model_version_by_alias(name: str, alias: str) -> Operation[ModelVersion | None]:
    """Return the version that an alias points at, or None when the model exists and the alias is not set.

    :param name: name of the model.
    :param alias: the alias; ``latest`` and ``v<digits>`` are not aliases.
    :return: the model version with its tags and aliases, or None.
    :raises InvalidArgumentError: for an alias that MLflow does not allow.
    :raises MlflowNotFoundError: when there is no such model.
    """
    _require_alias(name, alias)
    path, params = f"{API}/registered-models/alias", (("name", name), ("alias", alias))
    try:
        response = yield MlflowRequest(f"get alias {alias!r} of model {name!r}", "GET", path, params=params)
    except MlflowError as error:
        if error.error_code not in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            raise
        model = yield from get_registered_model(name)
        if alias in model.aliases:
            raise
        return None
    return answers.read(response, "model_version", answers.model_version)


def find_model_versions(
    name: str, alias: str = "", version: str = "", *, every: bool = False
) -> Operation[list[ModelVersion]]:
    """Return the versions that a wait for a version has to check; the model need not exist yet.

    :param name: name of the model.
    :param alias: the version that this alias points at; empty for none.
    :param version: without an alias, this version; empty for the newest :data:`NEWEST_VERSIONS`.
    :param every: all versions instead of the newest ones, for a wait with conditions that an old version may meet.
    :return: versions, the newest first; empty when there is no such model, alias or version.
    """
    try:
        if alias:
            pointed_at = yield from get_model_version_by_alias(name, alias)
            return [pointed_at] if pointed_at else []
        if version:
            return [(yield from get_model_version(name, version))]
    except MlflowNotFoundError:
        return []
    except MlflowAuthError:
        # MLflow's basic-auth answers 403 instead of 404 for a model that does not exist, except to a search.
        if (yield from search_registered_models(f"name = {filter_value(name)}", 1)):
            raise
        return []
    require("model name", name)
    where = f"name = {filter_value(name)}"
    limit = None if every else NEWEST_VERSIONS
    return (yield from search_model_versions(where, ("version_number DESC",), limit))


def transition_stage(name: str, version: str, stage: Stage, archive_existing: bool = False) -> Operation[ModelVersion]:
    """Set MLflow's own stage of a version, which MLflow has deprecated since 2.9.

    :param name: name of the model.
    :param version: its number, as text.
    :param stage: ``None``, ``Staging``, ``Production`` or ``Archived``.
    :param archive_existing: in the same transaction, move every other version of that stage to ``Archived``; the
        server refuses it for ``None`` and ``Archived``.
    :return: the model version.
    :raises InvalidArgumentError: for another stage.
    :raises MlflowNotFoundError: when there is no such model or version.
    """
    _require_version(name, version)
    if stage not in get_args(Stage):
        raise InvalidArgumentError(
            f"stage of model {name!r} must be one of {', '.join(get_args(Stage))}; got {stage!r}. Nothing was sent"
        )
    body = {"name": name, "version": version, "stage": stage, "archive_existing_versions": archive_existing}
    what = f"move version {version} of model {name!r} to stage {stage}"
    response = yield MlflowRequest(what, "POST", f"{API}/model-versions/transition-stage", json=body)
    return answers.read(response, "model_version", answers.model_version)


def read_model_versions(name: str, numbers: Collection[int]) -> Operation[list[ModelVersion]]:
    """Return versions of a model by number.

    :param name: name of the model.
    :param numbers: numbers of the versions.
    :return: those that exist, the newest first.
    """
    if len(numbers) > FEW_VERSIONS:
        where = f"name = {filter_value(name)}"
        newest = yield from search_model_versions(where, ("version_number DESC",), 1)
        above = int(newest[0].version) - min(numbers) + 1 if newest else 0
        if above <= 0:
            return []
        if above <= LISTED_PER_VERSION * len(numbers):
            found = yield from search_model_versions(where, ("version_number DESC",), above)
            return [version for version in found if int(version.version) in numbers]
    read: list[ModelVersion] = []
    for number in sorted(numbers, reverse=True):
        try:
            read.append((yield from get_model_version(name, str(number))))
        except MlflowNotFoundError:
            continue
    return read


def find_deleted_versions(
    models: Iterable[RegisteredModel], aliases: Collection[str]
) -> Operation[frozenset[tuple[str, str]]]:
    """Return the versions that aliases point at and that do not exist, with one request for each that is not listed.

    :param models: registered models as MLflow 3.10 to 3.15 return them, with the aliases of deleted versions.
    :param aliases: the aliases to check.
    :return: name of the model and number of the version.
    """
    gone = set()
    for model in models:
        pointed = {number for alias, number in model.aliases.items() if alias in aliases}
        for number in sorted(pointed - {version.version for version in model.latest_versions}):
            try:
                yield from get_model_version(model.name, number)
            except MlflowNotFoundError:
                gone.add((model.name, number))
    return frozenset(gone)


def names_filters(names: Collection[str], prefixes: Collection[str]) -> tuple[str, ...]:
    """Return filters that together match some names, and perhaps more: one search each.

    :param names: names of registered models.
    :param prefixes: beginnings of names.
    :return: MLflow's filters for models or versions; one empty filter (everything) when that cannot be filtered.
    """
    texts = [*names, *prefixes]
    if not all(texts) or not texts or any(set("'\"\\") & set(text) for text in texts):
        return ("",)
    filters: list[str] = []
    group: list[str] = []
    for name in (*sorted(names), None):
        is_full = len(group) == MAX_NAMES_IN_FILTER or sum(map(len, group)) + len(name or "") > MAX_FILTER_CHARACTERS
        if group and (name is None or is_full):
            quoted = ", ".join(f"'{each}'" for each in group)
            filters.append(f"name = {quoted}" if len(group) == 1 else f"name IN ({quoted})")
            group = []
        group += [name] if name is not None else []
    return (*filters, *(f"name LIKE '{prefix}%'" for prefix in sorted(prefixes)))


def set_alias(name: str, alias: str, version: str) -> Operation[None]:
    """Point an alias at a version, wherever it pointed before.

    :param name: name of the model.
    :param alias: the alias; ``latest`` and ``v<digits>`` are not allowed.
    :param version: number of the version, as text.
    :raises InvalidArgumentError: for an alias that MLflow does not allow.
    :raises MlflowNotFoundError: when there is no such model or version.
    """
    _require_alias(name, alias)
    _require_version(name, version)
    body = {"name": name, "alias": alias, "version": version}
    what = f"point alias {alias!r} of model {name!r} at version {version}"
    yield MlflowRequest(what, "POST", f"{API}/registered-models/alias", json=body)


def delete_alias(name: str, alias: str) -> Operation[None]:
    """Delete an alias of a registered model; a missing alias is not an error.

    :param name: name of the model.
    :param alias: the alias.
    :raises InvalidArgumentError: for an alias that MLflow does not allow.
    :raises MlflowNotFoundError: when there is no such model.
    """
    _require_alias(name, alias)
    what, path = f"delete alias {alias!r} of model {name!r}", f"{API}/registered-models/alias"
    yield from _delete_from_model(name, MlflowRequest(what, "DELETE", path, json={"name": name, "alias": alias}))


def _delete_from_model(name: str, request: MlflowRequest) -> Operation[None]:
    try:
        yield request
    except MlflowNotFoundError:
        yield from get_registered_model(name)


def _require_version(name: str, version: str) -> None:
    require("model name", name)
    if not (isinstance(version, str) and version.isascii() and version.isdigit()):
        raise InvalidArgumentError(
            f"version of model {name!r} must be digits as text, such as '3'; got {version!r}. Nothing was sent"
        )


def _require_alias(name: str, alias: str) -> None:
    require("model name", name)
    if not isinstance(alias, str) or not _ALIAS.match(alias) or _RESERVED_ALIAS.match(alias):
        raise InvalidArgumentError(
            f"alias of model {name!r} must be letters, digits, '_' and '-', but neither 'latest' nor 'v<digits>'; got "
            f"{alias!r}. Nothing was sent"
        )
