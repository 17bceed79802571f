"""``airflow-mcp manifests``: writes the Kubernetes objects of a model server, without a cluster."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml

from airflow_mcp.cli.options import add_tracking_uri
from airflow_mcp.cli.pipeline_files import add_environment, add_root, plan_of
from airflow_mcp.core.argument import read_argument
from airflow_mcp.core.manifests.diff import manifest_diff
from airflow_mcp.core.manifests.gateway_route import Route
from airflow_mcp.core.manifests.model_server import Target, model_server_manifests
from airflow_mcp.core.manifests.parts import Manifest
from airflow_mcp.core.manifests.spec import read_model_server
from airflow_mcp.core.pipeline.file.document import read_document
from airflow_mcp.core.pipeline.file.policies import KINDS, TrafficPolicyFile, read_policy_file
from airflow_mcp.core.pipeline.plan.entities import Reference, Template
from airflow_mcp.core.pipeline.plan.layout import DEPLOY_SERVER
from airflow_mcp.exceptions import InvalidArgumentError, PipelineSpecError, SpecProblem

_PIPELINE = "ModelPipeline"
_FIELDS = ("model_name", "version", "image", "namespace", "name", "track", "replicas", "profile", "tracking_uri")
"""Options that are fields of the model server."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the files, the fields that are most often given by hand, and the output."""
    command.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help=f"a file of kind {_PIPELINE} with a server in its stage deploy, or of kind {' or '.join(KINDS)}",
    )
    command.add_argument("--server", metavar="FILE", help="YAML file with fields of the model server")
    command.add_argument("--model-name", help="registered model")
    command.add_argument("--version", help="number of the version to serve; default: follow the champion")
    command.add_argument("--image", help="image of the server; without a tag, the version is the tag")
    command.add_argument("--namespace", help="namespace; default: none, kubectl's counts")
    command.add_argument("--name", help="name of the objects; default: from the name of the model")
    command.add_argument("--track", choices=("blue", "green"), help="one of two Deployments behind one Service")
    command.add_argument("--replicas", type=int, help="number of pods; default: 2")
    command.add_argument("--profile", choices=("safe", "seed"), help="default: safe")
    command.add_argument(
        "--target", choices=get_args(Target), default="deployment", help="what replaces pods; default: deployment"
    )
    command.add_argument("--gateway", help="name of a Gateway: add an HTTPRoute from it to the server")
    command.add_argument("--hostname", action="append", default=[], help="host name of the HTTPRoute; repeatable")
    command.add_argument("--canary-service", default="", help="second Service of the HTTPRoute, with weight 0")
    command.add_argument("--against", metavar="FILE", help="show what differs from these objects, YAML or JSON")
    command.add_argument("-o", "--output", choices=("yaml", "json"), default="yaml", help="default: yaml")
    command.add_argument("--json", dest="output", action="store_const", const="json", help="the same as -o json")
    add_tracking_uri(command)
    add_environment(command)
    add_root(command)


def run(parsed: argparse.Namespace) -> int:
    """Print the objects, or their difference from others.

    :raises InvalidArgumentError: listing every wrong field.
    :raises PipelineSpecError: with every problem of a file.
    """
    fields: dict[str, Any] = {"tracking_uri": os.environ.get("MLFLOW_TRACKING_URI", "")}
    origin: dict[str, str] = {}
    for file in parsed.files:
        found = _fields_of(file, parsed)
        if twice := sorted(found.keys() & origin.keys()):
            raise InvalidArgumentError(
                f"{file} and {origin[twice[0]]} both give {twice[0]}. Nothing was written: name one of them"
            )
        origin |= dict.fromkeys(found, file)
        fields |= found
    if parsed.server:
        fields |= _mapping(parsed.server)
    fields |= {name: value for name in _FIELDS if (value := getattr(parsed, name)) is not None}
    wanted = model_server_manifests(read_model_server(fields), parsed.target, _route(parsed))
    if parsed.canary_service:
        print(
            f"note: the Service {parsed.canary_service} is not among these objects. Deploy the server behind it first",
            file=sys.stderr,
        )
    if parsed.against is not None:
        differences = list(_difference(parsed.against, wanted))
        said = json.dumps({"differences": differences}, indent=2) if parsed.output == "json" else "\n".join(differences)
        print(said or "no difference")
    elif parsed.output == "json":
        print(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(wanted)}, indent=2))
    else:
        print(yaml.safe_dump_all(wanted, sort_keys=False, explicit_start=True), end="")
    return 0


def _route(parsed: argparse.Namespace) -> Route | None:
    if parsed.gateway:
        given = {"gateway": parsed.gateway, "hostnames": tuple(parsed.hostname), "canary": parsed.canary_service}
        return read_argument(Route, "route", given)
    if parsed.hostname or parsed.canary_service:
        raise InvalidArgumentError("--hostname and --canary-service are of an HTTPRoute, which needs --gateway")
    return None


def _fields_of(file: str, parsed: argparse.Namespace) -> Mapping[str, Any]:
    """Return the fields of the model server that a document describes."""
    kind = _mapping(file).get("kind")
    if kind == _PIPELINE:
        return _fields_of_pipeline(file, parsed)
    if kind not in KINDS:
        raise InvalidArgumentError(f"kind must be one of {', '.join((_PIPELINE, *KINDS))}; got {kind!r} in {file}")
    document = read_policy_file(Path(file).read_bytes(), file)
    return {"traffic_policy" if isinstance(document, TrafficPolicyFile) else "rollback_policy": document.spec}


def _fields_of_pipeline(file: str, parsed: argparse.Namespace) -> Mapping[str, Any]:
    tasks = plan_of(file, parsed.env, parsed.root).plan.every_task
    task = next((each for each in tasks if each.task_id == DEPLOY_SERVER), None)
    if task is None:
        raise InvalidArgumentError(f"{file} has no server in its stage deploy. Add one, or give --image")
    given = task.arguments["server"].items()
    server = {name: value for name, value in given if not isinstance(value, Reference | Template)}
    return {**server, **{name: task.arguments[name] for name in ("model_name", "image", "namespace")}}


def _mapping(file: str) -> dict[str, Any]:
    documents = _documents(file)
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise InvalidArgumentError(f"{file} must hold one mapping")
    problems: list[SpecProblem] = []
    read_document(Path(file).read_bytes(), file, problems)  # a key that is there twice, which the last one would win
    if problems:
        raise PipelineSpecError(problems)
    return documents[0]


def _documents(file: str) -> list[Any]:
    try:
        return list(yaml.safe_load_all(Path(file).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"file {file} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise InvalidArgumentError(f"{file} is not YAML: {error}") from None


def _difference(file: str, wanted: Sequence[Manifest]) -> tuple[str, ...]:
    """Compare with objects as they were written before, or as ``kubectl get`` shows them."""
    found: list[Mapping[str, Any]] = []
    for document in _documents(file):
        is_list = isinstance(document, dict) and document.get("kind") == "List"
        found += document.get("items") or [] if is_list else [document]
    if not all(
        isinstance(each, dict) and "kind" in each and (each.get("metadata") or {}).get("name") for each in found
    ):
        raise InvalidArgumentError(f"{file} must hold objects of Kubernetes, with kind and metadata.name")
    return manifest_diff(found, wanted, is_live=any("uid" in each["metadata"] for each in found))
