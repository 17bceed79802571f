"""``airflow-mcp drift``: profile data and compare two datasets, as the drift check does."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from airflow_mcp.cli.options import add_format, print_answer, read_policy_file, require_data_reader, write_file
from airflow_mcp.core.argument import problems_of
from airflow_mcp.core.contract import ENV_ENGINE_ADDRESS
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.document import dump_document
from airflow_mcp.core.drift.page import render_drift_report
from airflow_mcp.core.drift.policy import AUTO, ComparisonPolicy, DriftCorrection, DriftPrecision, methods_for
from airflow_mcp.core.drift.profile import DataProfile, write_profile
from airflow_mcp.core.drift.result import ColumnResult, DriftResult
from airflow_mcp.core.drift.summary import DriftSummary
from airflow_mcp.core.engine import ENGINES, plain_engine_address
from airflow_mcp.exceptions import InvalidArgumentError

if TYPE_CHECKING:
    from airflow_mcp.work.drift.column_reading import ProfileOptions

EXIT_DRIFTED, EXIT_INCONCLUSIVE = 3, 4
_LISTS = {
    "--column": ("columns", "column to read; default: all"),
    "--ignore": ("ignored_columns", "column to leave out"),
    "--categorical": ("categorical_columns", "column to treat as categories whatever its type"),
    "--quality": ("quality_columns", "column with the quality of each prediction"),
}
_NAMES = {
    "--prediction": ("prediction", "column with the model's prediction"),
    "--target": ("target", "column with the label; with --prediction, the error of each row is compared too"),
}
_MAX_COLUMNS_SHOWN = 50


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the actions: ``profile``, ``merge`` and ``compare``."""
    actions = command.add_subparsers(dest="action", required=True)
    profile = actions.add_parser("profile", help="profile data")
    profile.add_argument(
        "paths", metavar="PATH", nargs="+", help="file, folder, glob or URL; several are read as one dataset"
    )
    _add_columns(profile)
    _add_engine(profile)
    merge = actions.add_parser("merge", help="merge profiles of parts, such as hours, into one profile")
    merge.add_argument("paths", metavar="PROFILE", nargs="+", help="profile (.json)")
    for action in (profile, merge):
        action.add_argument("-o", "--output", metavar="FILE", required=True, help="profile to write (.json)")
        add_format(action)
    compare = actions.add_parser("compare", help="compare two datasets, or their profiles")
    compare.add_argument("reference", metavar="REFERENCE", help="data, or a profile (.json)")
    compare.add_argument("current", metavar="CURRENT", help="data, or a profile (.json)")
    compare.add_argument("--policy", metavar="FILE", help="policy (YAML or JSON); the options below override it")
    _add_columns(compare)
    _add_policy(compare)
    _add_engine(compare)
    compare.add_argument("-o", "--output", metavar="FILE", help="file for the result as JSON")
    compare.add_argument(
        "--html", metavar="FILE", help="file for the HTML report with both distributions of each column"
    )
    add_format(compare)
    compare.add_argument(
        "--exit-code",
        action="store_true",
        help=f"exit with {EXIT_DRIFTED} if the data drifted, {EXIT_INCONCLUSIVE} if the comparison is inconclusive",
    )


def run(parsed: argparse.Namespace) -> int:
    """Run one of the actions.

    :param parsed: the parsed command line.
    :return: the exit code.
    """
    require_data_reader("drift")
    if parsed.action == "compare":
        return _compare(parsed)
    profile = _profile(parsed) if parsed.action == "profile" else _merge(parsed)
    text = write_profile(profile)
    write_file("output", parsed.output, text)
    size, columns = len(text.encode()), len(profile.columns)
    document = {"file": parsed.output, "rows": profile.rows, "columns": columns, "bytes": size}
    print_answer(parsed, document, [f"{parsed.output}: {profile.rows} rows, {columns} columns, {size} bytes"])
    return 0


def _add_columns(command: argparse.ArgumentParser) -> None:
    for option, (name, words) in _LISTS.items():
        command.add_argument(option, dest=name, metavar="COLUMN", action="append", help=f"{words}; may be repeated")
    for option, (name, words) in _NAMES.items():
        command.add_argument(option, dest=name, metavar="COLUMN", help=words)


def _add_engine(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--engine", choices=ENGINES, default="local", help="what reads the data: this process, or a cluster"
    )
    command.add_argument(
        "--engine-address",
        metavar="ADDRESS",
        default="",
        help=f"cluster, without credentials; default: {ENV_ENGINE_ADDRESS}, which may have them",
    )


def _engine_address(parsed: argparse.Namespace) -> str:
    if not parsed.engine_address:
        return ""
    if parsed.engine == "local":
        raise InvalidArgumentError("--engine-address needs --engine spark or dask. Nothing was read")
    return plain_engine_address("--engine-address", parsed.engine, parsed.engine_address)


def _add_policy(command: argparse.ArgumentParser) -> None:
    command.add_argument("--precision", choices=get_args(DriftPrecision), help="default: profile")
    for kind in ("numerical", "categorical"):
        names = (AUTO, *methods_for("numerical" if kind == "numerical" else "categorical"))
        command.add_argument(f"--{kind}-method", choices=names, help="default: auto, chosen as Evidently does")
        command.add_argument(
            f"--{kind}-threshold", type=float, metavar="X", help="default: the threshold of the method"
        )
    command.add_argument(
        "--correction", choices=get_args(DriftCorrection), help="correction of p-values for many columns; default: none"
    )
    command.add_argument(
        "--drift-share",
        type=float,
        metavar="X",
        help="share of drifted features from which the data drifted; default: 0.5",
    )
    command.add_argument(
        "--min-rows", type=int, metavar="N", help="values that a column needs on both sides; default: 100"
    )


def _given(parsed: argparse.Namespace, names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in vars(parsed).items() if name in names and value is not None}


# --- actions: the work plane is imported only here --------------------------------------------------------------------


def _profile(parsed: argparse.Namespace) -> DataProfile:
    from airflow_mcp.work.drift.column_reading import ProfileOptions  # noqa: PLC0415
    from airflow_mcp.work.drift.partitions import profile_on_engine  # noqa: PLC0415

    options: ProfileOptions = ProfileOptions(**_given(parsed, set(ProfileOptions.__dataclass_fields__)))
    data = [DatasetPin(uri=path) for path in parsed.paths]
    return profile_on_engine(data, options, parsed.engine, _engine_address(parsed))


def _merge(parsed: argparse.Namespace) -> DataProfile:
    from airflow_mcp.work.drift.profiles import merge_profiles, stored_profile  # noqa: PLC0415

    return merge_profiles([stored_profile(path) for path in parsed.paths])


def _compare(parsed: argparse.Namespace) -> int:
    from airflow_mcp.work.drift.dataset_comparison import compare_datasets  # noqa: PLC0415
    from airflow_mcp.work.drift.partitions import sides_on_engine  # noqa: PLC0415
    from airflow_mcp.work.drift.profiles import read_side  # noqa: PLC0415

    policy = _policy(parsed)
    sides = read_side(parsed.reference), read_side(parsed.current)
    result = compare_datasets(*sides_on_engine(sides, policy, parsed.engine, _engine_address(parsed)), policy).result
    text = dump_document(result)
    if parsed.output:
        write_file("output", parsed.output, text + "\n")
    if parsed.html:
        write_file("html", parsed.html, render_drift_report(DriftSummary(identity="", run_id="", result=result)))
    print(text if parsed.format == "json" else "\n".join(describe(result)))
    if not parsed.exit_code:
        return 0
    return {"not_drifted": 0, "drifted": EXIT_DRIFTED, "inconclusive": EXIT_INCONCLUSIVE}[result.verdict]


def _policy(parsed: argparse.Namespace) -> ComparisonPolicy:
    fields = read_policy_file(parsed.policy, "Nothing was compared") if parsed.policy else {}
    fields |= _given(parsed, set(ComparisonPolicy.model_fields))
    try:
        return ComparisonPolicy.model_validate(fields)
    except ValidationError as error:
        problems = problems_of(error, "the policy", ComparisonPolicy, then="Nothing was compared")
        raise InvalidArgumentError(problems) from None


# --- the result as text --------------------------------------------------------------------------------------------


def describe(result: DriftResult) -> Iterator[str]:
    """Describe a result as text: the verdict, then the columns, worst first, then the findings.

    :param result: result of a comparison.
    :return: the lines.
    """
    yield f"{result.verdict}: {result.reason}"
    sides = ("profile of " * result.reference_is_profile, "profile of " * result.current_is_profile)
    yield f"reference: {sides[0]}{_names(result.reference)}, {result.reference_rows} rows"
    yield f"current: {sides[1]}{_names(result.current)}, {result.current_rows} rows"
    yield ""
    columns = sorted(result.columns, key=lambda column: -column.severity)
    width = min(max((len(column.column) for column in columns), default=0), 40)
    for column in columns[:_MAX_COLUMNS_SHOWN]:
        yield f"  {_state(column):<8} {column.column:<{width}} {_score(column)}".rstrip()
    if len(columns) > _MAX_COLUMNS_SHOWN:
        yield f"  and {len(columns) - _MAX_COLUMNS_SHOWN} more columns; --format json has them all"
    if result.findings:
        yield ""
    for finding in result.findings:
        yield f"  {'finding' if finding.exceeded else 'note':<8} {finding.message}"


def _names(pins: tuple[DatasetPin, ...]) -> str:
    more = f" and {len(pins) - 3} more" if len(pins) > 3 else ""
    return ", ".join(pin.uri for pin in pins[:3]) + more


def _state(column: ColumnResult) -> str:
    return {True: "drifted", False: "stable", None: "unknown"}[column.drifted]


def _score(column: ColumnResult) -> str:
    if column.score is None:
        return column.note
    sign = "p " if column.is_p_value else ""
    error = f" ±{column.error:.2g}" if column.error else ""
    adjusted = f", adjusted {column.adjusted:.4g}" if column.adjusted is not None else ""
    close = ", close to its threshold" if column.close else ""
    role = f" ({column.role})" if column.role != "feature" else ""
    note = f"; {column.note}" if column.note else ""
    threshold = f"threshold {column.threshold:g}"
    return f"{column.method} {sign}{column.score:.4g}{error}{adjusted}, {threshold}{close}{role}{note}"
