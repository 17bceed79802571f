"""``airflow-mcp registry stages``, ``set-stage``, ``migrate-stages`` and ``mirror-stages``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_mcp.cli.governance import governance
from airflow_mcp.cli.options import add_format, add_tracking_uri, print_answer
from airflow_mcp.cli.registry_server import actor, log, order_of, registry_server
from airflow_mcp.core.contract import ALIAS_CHAMPION, TAG_MIRROR_STAGES
from airflow_mcp.core.registry.stage_migration import PREFER, Migration, MigrationChoices, plan_migration
from airflow_mcp.core.registry.stages import (
    STAGES,
    UNKNOWN_TO_US,
    is_mirrored,
    read_stages,
    require_archivable,
    require_one_production,
    require_stage,
    stage_drift,
)
from airflow_mcp.exceptions import InvalidArgumentError, ModelControlPlaneError
from airflow_mcp.mlflow_client.operations import DirectMlflow
from airflow_mcp.registry.aliases import AliasMover, versions_of
from airflow_mcp.registry.promotion import Promotion, StageTransition, promote, transition
from airflow_mcp.registry.stages import migrate, read_with_versions

_NO_CHAMPION = "none"


def add_actions(actions: Any) -> None:
    """Add ``stages``, ``set-stage``, ``migrate-stages`` and ``mirror-stages`` to the actions of ``registry``."""
    stages = _add(actions, "stages", _stages, "the stage of every version, and where MLflow's own stage differs")
    stages.add_argument("model_name", help="registered model")
    set_stage = _add(actions, "set-stage", _set_stage, "move a version between stages, by moving aliases")
    set_stage.add_argument("model_name", help="registered model")
    set_stage.add_argument("version", help="number of the version")
    set_stage.add_argument("stage", help=", ".join(STAGES))
    set_stage.add_argument("--archive-existing", action="store_true", help="archive the other versions in that stage")
    set_stage.add_argument(
        "--expected-champion", default="", metavar="VERSION", help="for Production: the champion now, or 'none'"
    )
    set_stage.add_argument("--no-gate", action="store_true", help="for Production: do not require a passed gate")
    set_stage.add_argument(
        "--no-load-check", action="store_true", help="for Production: do not require a passed load check"
    )
    set_stage.add_argument("--reason", default="", help="recorded with the move")
    migration = _add(
        actions,
        "migrate-stages",
        _migrate,
        "migrate from MLflow's stages to aliases; a dry run unless --apply is given",
    )
    migration.add_argument("model_names", nargs="*", metavar="NAME", help="registered models")
    migration.add_argument("--all", action="store_true", help="every registered model")
    migration.add_argument("--apply", action="store_true", help="migrate; without it only the plan is printed")
    migration.add_argument("--prefer", choices=PREFER, help="which one wins where an alias and a stage disagree")
    migration.add_argument(
        "--newest", action="store_true", help="make the newest of several versions in Production champion"
    )
    migration.add_argument("--reason", default="", help="recorded with the moves")
    mirror = _add(actions, "mirror-stages", _mirror, "make MLflow's own stages follow the aliases, or stop that")
    mirror.add_argument("model_name", help="registered model")
    mirror.add_argument("switch", choices=("on", "off"))


def _add(actions: Any, name: str, answer: Any, what: str) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(name, help=what, description=what)
    action.set_defaults(answer=answer)
    add_tracking_uri(action)
    add_format(action)
    return action


# --- stages ----------------------------------------------------------------------------------------------------------


def _stages(parsed: argparse.Namespace) -> int:
    """Print the stage of every version."""
    with registry_server(parsed) as mlflow:
        model = mlflow.get_registered_model(parsed.model_name)
        versions = versions_of(mlflow, model.name)
    stages, drift = read_stages(model), stage_drift(model, versions)
    ordered = sorted(versions, key=lambda version: int(version.version), reverse=True)
    rows = [
        {
            "version": version.version,
            "stage": (its := stages.get(version.version, UNKNOWN_TO_US)).stage,
            "why": its.why,
            "mlflow_stage": version.current_stage,
        }
        for version in ordered
    ]
    document = {
        "model_name": model.name,
        "mirrored": is_mirrored(model),
        "versions": rows,
        "drift": [{"version": one.version, "stage": one.stage, "mlflow_stage": one.found} for one in drift],
    }
    print(json.dumps(document, indent=2) if parsed.format == "json" else "\n".join(_stages_text(document)))
    return 0


def _stages_text(document: Mapping[str, Any]) -> Iterator[str]:
    follow = "follow the aliases" if document["mirrored"] else "do not follow the aliases"
    yield f"{document['model_name']}: MLflow's own stages {follow}\n"
    yield f"{'version':>7}  {'stage':<10}  {'MLflow says':<11}  why"
    for row in document["versions"]:
        differs = " " if row["mlflow_stage"] == row["stage"] else "!"
        yield f"{row['version']:>7}  {row['stage']:<10} {differs}{row['mlflow_stage']:<11}  {row['why']}"
    if document["drift"]:
        yield (f"\n! MLflow's own, deprecated stage of {len(document['drift'])} version(s) differs; the aliases decide")


# --- set-stage -------------------------------------------------------------------------------------------------------


def _set_stage(parsed: argparse.Namespace) -> int:
    """Move a version between stages."""
    name, version = parsed.model_name, parsed.version
    stage = require_stage("STAGE", parsed.stage)
    require_archivable(stage, parsed.archive_existing)
    with registry_server(parsed) as mlflow:
        if stage == "Production":
            expected = _expected_champion(parsed.expected_champion)
            require_one_production(version, expected, archive_existing=parsed.archive_existing)
            promotion = Promotion(
                order=order_of("promote", parsed.reason),
                model_name=name,
                version=version,
                expected_champion=expected,
                require_gate=not parsed.no_gate,
                require_load_check=not parsed.no_load_check,
            )
            is_done = promote(mlflow, promotion, log=log, governance=governance()).is_done
        else:
            wanted = StageTransition(
                order=order_of("transition", parsed.reason),
                model_name=name,
                version=version,
                stage=stage,
                archive_existing=parsed.archive_existing,
            )
            is_done = transition(mlflow, wanted, log=log, governance=governance()).is_done
    document = {"model_name": name, "version": version, "stage": stage, "changed": not is_done}
    print_answer(parsed, document, [f"{name}: version {version} is {'already' if is_done else 'now'} in {stage}"])
    return 0


def _expected_champion(given: str) -> str | None:
    if given != _NO_CHAMPION and not given.isdecimal():
        raise InvalidArgumentError(
            f"--expected-champion must be the version that is champion now, or {_NO_CHAMPION!r}; got {given!r}. "
            "Production is a promotion, which is refused if somebody has changed the champion meanwhile"
        )
    return None if given == _NO_CHAMPION else given


# --- migrate-stages --------------------------------------------------------------------------------------------------


def _migrate(parsed: argparse.Namespace) -> int:
    """Migrate registered models from stages to aliases, or print the plan."""
    if bool(parsed.model_names) == parsed.all:
        raise InvalidArgumentError(
            "exactly one of NAME and --all must be given; got " + ("both" if parsed.all else "neither")
        )
    choices = MigrationChoices(parsed.prefer, parsed.newest)
    with registry_server(parsed) as mlflow:
        planned = [
            plan_migration(model, versions, choices)
            for model, versions in read_with_versions(mlflow, parsed.model_names)
        ]
        failed = dict(_apply(mlflow, planned, choices, parsed) if parsed.apply else ())
    if parsed.format == "json":
        models = [{**one.to_json(), "error": failed.get(one.model_name)} for one in planned]
        print(json.dumps({"applied": parsed.apply, "models": models}, indent=2))
    else:
        print("\n".join(_migration_text(planned, failed, is_applied=parsed.apply)))
    return 1 if failed or any(one.refusals for one in planned) else 0


def _apply(
    mlflow: DirectMlflow, planned: list[Migration], choices: MigrationChoices, parsed: argparse.Namespace
) -> Iterator[tuple[str, str]]:
    """Migrate every model that can be migrated; yield the model and error of every failure."""
    for one in planned:
        if one.status == "to migrate":
            try:
                migrate(mlflow, one, choices, order_of("migrate", parsed.reason), log=log, governance=governance())
            except ModelControlPlaneError as error:
                yield one.model_name, str(error)


def _migration_text(planned: list[Migration], failed: Mapping[str, str], *, is_applied: bool) -> Iterator[str]:
    for one in planned:
        if one.is_done:
            continue
        yield f"{one.model_name}:"
        if one.moves_champion:
            yield f"  alias {ALIAS_CHAMPION}: {one.champion_before or 'none'} -> {one.champion} (Production)"
        if one.challenger != one.challenger_before:
            yield f"  alias challenger: {one.challenger_before or 'none'} -> {one.challenger} (Staging)"
        yield from (f"  recorded as {kind}: {versions}" for kind, versions in one.to_json()["recorded"].items())
        yield from (f"  note: {note}" for note in one.notes)
        yield from (f"  REFUSED: {refusal}" for refusal in one.refusals)
        if one.model_name in failed:
            yield f"  FAILED: {failed[one.model_name]}"
    counts = {status: sum(one.status == status for one in planned) for status in ("to migrate", "done", "refused")}
    to_do = f"{counts['to migrate'] - len(failed)} migrated" if is_applied else f"{counts['to migrate']} to migrate"
    yield (
        f"{len(planned)} models: {to_do}, {counts['done']} with nothing to do, {counts['refused']} refused"
        + (f", {len(failed)} failed" if failed else "")
    )
    if not is_applied:
        yield "Nothing was changed. Pass --apply to migrate."


# --- mirror-stages ---------------------------------------------------------------------------------------------------


def _mirror(parsed: argparse.Namespace) -> int:
    """Make MLflow's own stages follow the aliases, or stop that."""
    name = parsed.model_name
    with registry_server(parsed) as mlflow:
        if parsed.switch == "off":
            mlflow.delete_registered_model_tag(name, TAG_MIRROR_STAGES)
            said = f"{name}: MLflow's own stages no longer follow the aliases; no stage was changed"
            print_answer(parsed, {"model_name": name, "mirrored": False, "changed": 0}, [said])
            return 0
        waiting = plan_migration(mlflow.get_registered_model(name), versions_of(mlflow, name))
        if not waiting.is_done:
            raise InvalidArgumentError(
                f"{name!r}: MLflow's own stages differ from the aliases and would be overwritten. Nothing was changed; "
                f"run 'airflow-mcp registry migrate-stages {name}' first"
            )
        mlflow.set_registered_model_tag(name, TAG_MIRROR_STAGES, "true")
        moved = AliasMover(mlflow, name, actor=actor(), log=log, governance=governance()).mirror()
    said = f"{name}: MLflow's own stages follow the aliases from now on; the stage of {moved} version(s) was changed"
    print_answer(parsed, {"model_name": name, "mirrored": True, "changed": moved}, [said])
    return 0
