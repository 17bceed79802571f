"""``airflow-mcp quality``: judge logged predictions by labels, as the quality check does."""

from __future__ import annotations

import argparse
import json
import os
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

from airflow_mcp.cli.options import (
    add_format,
    add_tracking_uri,
    mlflow_settings,
    read_policy_file,
    require_data_reader,
    write_file,
)
from airflow_mcp.core.data.logged_requests import CHAMPION_ROLES, LogRole
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.evaluation.evidence import ModelType
from airflow_mcp.core.quality.page import render_quality_report
from airflow_mcp.core.quality.summary import ProbabilityOf, describe, read_quality_request
from airflow_mcp.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from airflow_mcp.core.quality.summary import Baseline

EXIT_DEGRADED, EXIT_INCONCLUSIVE = 3, 4


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options; their names and defaults are those of ``CheckQualityOperator``."""
    command.add_argument("requests", metavar="REQUESTS", help="prediction log: file, folder, glob or URL")
    command.add_argument(
        "labels", metavar="LABELS", nargs="+", help="labels: file, folder, glob or URL; several are read as one table"
    )
    command.add_argument("--model-type", choices=get_args(ModelType), required=True)
    command.add_argument("--policy", metavar="FILE", required=True, help="policy with the limits (YAML or JSON)")
    command.add_argument(
        "--model-name",
        default="",
        help="registered model, whose champion's evaluation is the baseline; default: none, and MLflow is not asked",
    )
    add_tracking_uri(command)
    _add_columns(command)
    command.add_argument("--as-of", metavar="TIME", help="time of the check, ISO 8601 with an offset; default: now")
    command.add_argument("-o", "--output", metavar="FILE", help="file for the summary as JSON")
    command.add_argument("--html", metavar="FILE", help="file for the HTML report")
    add_format(command)
    command.add_argument(
        "--exit-code",
        action="store_true",
        help=f"exit with {EXIT_DEGRADED} if the model is degraded, {EXIT_INCONCLUSIVE} if the check is inconclusive",
    )


def _add_columns(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--key",
        dest="keys",
        metavar="COLUMN",
        action="append",
        default=[],
        help="column that names the entity in both tables; may be repeated; default: join by the request ID",
    )
    command.add_argument("--label-column", metavar="COLUMN", default="label", help="default: label")
    command.add_argument(
        "--label-time-column", metavar="COLUMN", default="", help="column with the time at which a label became known"
    )
    command.add_argument(
        "--positive-label", metavar="VALUE", help="of two classes, the positive one; default: the greater"
    )
    command.add_argument(
        "--probability",
        choices=[name for name in get_args(ProbabilityOf) if name],
        default="",
        help="the class that the log's probabilities are about; default: they are not used",
    )
    command.add_argument(
        "--segment",
        dest="segments",
        metavar="COLUMN",
        action="append",
        default=[],
        help="column of the log for whose values metrics are repeated; may be repeated",
    )
    command.add_argument(
        "--role",
        dest="roles",
        choices=get_args(LogRole),
        action="append",
        help="role whose answers are judged; may be repeated; default: " + " and ".join(CHAMPION_ROLES),
    )


def run(parsed: argparse.Namespace) -> int:
    """Judge, print the result and write the files that were asked for.

    :param parsed: the parsed command line.
    :return: the exit code.
    """
    require_data_reader("quality")
    from airflow_mcp.work.steps.quality import judge_quality  # noqa: PLC0415  (seconds of imports)

    request = read_quality_request(
        read_policy_file(parsed.policy, "Nothing was judged"),
        model_name=parsed.model_name,
        requests=parsed.requests,
        roles=tuple(parsed.roles or CHAMPION_ROLES),
        labels=tuple(DatasetPin(uri=place) for place in parsed.labels),
        keys=tuple(parsed.keys),
        label_column=parsed.label_column,
        label_time_column=parsed.label_time_column,
        model_type=parsed.model_type,
        positive_label=_value(parsed.positive_label),
        probability=parsed.probability,
        segments=tuple(parsed.segments),
        as_of=parsed.as_of or datetime.now(UTC),
        baseline=_baseline(parsed),
    )
    summary = judge_quality(request)
    text = dump_document(summary)
    if parsed.output:
        write_file("output", parsed.output, text + "\n")
    if parsed.html:
        write_file("html", parsed.html, render_quality_report(summary))
    print(text if parsed.format == "json" else "\n".join(describe(summary)))
    if not parsed.exit_code:
        return 0
    return {"not_degraded": 0, "degraded": EXIT_DEGRADED, "inconclusive": EXIT_INCONCLUSIVE}[summary.verdict]


def _value(text: str | None) -> Any:
    """Return a number or a flag where the text is one, as it is in JSON."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _baseline(parsed: argparse.Namespace) -> Baseline | None:
    """Return what the champion's evaluation measured; None when no model is named, or it has no champion.

    :raises InvalidArgumentError: when a model is named and there is no address of MLflow.
    """
    if not parsed.model_name:
        if parsed.tracking_uri:
            raise InvalidArgumentError("--tracking-uri needs --model-name, for the baseline. Nothing was judged")
        return None
    from airflow_mcp.mlflow_client.operations import DirectMlflow  # noqa: PLC0415
    from airflow_mcp.registry.aliases import champion_of  # noqa: PLC0415
    from airflow_mcp.registry.evidence import find_baseline  # noqa: PLC0415

    settings = mlflow_settings(parsed.tracking_uri)
    if parsed.tracking_uri:
        os.environ["MLFLOW_TRACKING_URI"] = parsed.tracking_uri  # where the step looks for the champion's profile
    with closing(DirectMlflow(settings)) as mlflow:
        champion = champion_of(mlflow, parsed.model_name)
        return find_baseline(mlflow, champion) if champion is not None else None
