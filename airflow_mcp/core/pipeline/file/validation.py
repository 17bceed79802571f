"""A document checked against the models; every problem has its place and says what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from airflow_mcp.core.argument import closest, in_words, kind_of, models_in, names_of, nearest
from airflow_mcp.core.pipeline.file.document import FieldPath, Node, find, plain, write_path
from airflow_mcp.core.pipeline.file.fields import WORDS_OF_PATTERNS
from airflow_mcp.core.pipeline.file.stages import STAGE_MODELS, STAGES, CustomStage
from airflow_mcp.exceptions import SpecProblem

_MAX_SHOWN = 500
_MISPLACED: Mapping[tuple[str, str], str] = {
    ("PipelineSpec", "timezone"): "It belongs beside cron, in a trigger",
    ("PipelineSpec", "cron"): "It belongs in triggers: - cron: ...",
    ("PipelineSpec", "metricsThreshold"): "It belongs in the stage evaluate",
    ("PipelineSpec", "thresholds"): "It belongs in the stage gate",
    ("PipelineSpec", "approval"): "It is a stage: write stages: - name: approval. The risk is spec.risk",
    ("ApprovalStage", "risk"): "It belongs in spec",
    ("ApprovalStage", "chain"): "It belongs in the governance policy, which says who is asked",
    ("ApprovalStage", "approvers"): "It belongs in the governance policy, which says who is asked",
    ("Trigger", "on"): "Did you mean 'onCommit'?",
    ("Trigger", "push"): "Did you mean 'onCommit'?",
    ("Trigger", "schedule"): "Did you mean 'cron'?",
    **{
        ("Data", name): "It belongs under data.dvc or data.lfs"
        for name in ("path", "evaluationPath", "revision", "repoUrl")
    },
}
"""Model and name of a field to where it belongs."""
M = TypeVar("M", bound=BaseModel)


def problem_at(node: Node, path: FieldPath, message: str, *, at_key: bool = False) -> SpecProblem:
    """Create a problem at the place that a path leads to.

    :param node: the document.
    :param path: names and indexes from the top; when the last step is not in the file, its parent's place is used.
    :param message: what is wrong and what is allowed.
    :param at_key: whether to point at the key instead of the value.
    """
    found, walked = find(node, path)
    is_there = len(walked) == len(path) or not isinstance(found.content, dict | list)  # a short form has no such field
    place = found.place if is_there and not at_key else found.key_place
    return SpecProblem(*place, write_path(path)[:_MAX_SHOWN], message[:_MAX_SHOWN])


def validate(model: type[M], document: Node, problems: list[SpecProblem]) -> M | None:
    """Check a document against a model.

    :param model: the model.
    :param document: the document.
    :param problems: every problem is added here, one for each place.
    :return: the validated document; None when there is a problem.
    """
    if not isinstance(document.content, dict):
        message = f"the file must be a mapping of {', '.join(names_of(model))}; got {kind_of(document.content)}"
        problems.append(problem_at(document, (), message))
        return None
    before = len(problems)
    done = _wrong_stages(document, problems)
    try:
        result = model.model_validate(plain(document))
    except ValidationError as error:
        _add_all(model, document, error, problems, done)
        return None
    return result if len(problems) == before else None


def _wrong_stages(document: Node, problems: list[SpecProblem]) -> list[FieldPath]:
    """Report stages with a reserved or misspelled name; return them, so that nothing else is reported about them."""
    found: list[FieldPath] = []
    stages, walked = find(document, ("spec", "stages"))
    if len(walked) < 2 or not isinstance(stages.content, list):
        return found
    for index, stage in enumerate(stages.content):
        message = _wrong_stage(stage.content)
        if message:
            path: FieldPath = ("spec", "stages", index)
            problems.append(problem_at(document, (*path, "name"), message))
            found.append(path)
    return found


def _wrong_stage(stage: Any) -> str:
    if not isinstance(stage, dict):
        return f"must be a mapping, for example - name: {stage}; got {stage!r}" if isinstance(stage, str) else ""
    if "name" not in stage:
        return _nameless(stage)
    name = stage["name"].content
    if not isinstance(name, str) or name in STAGES:
        return ""
    near = closest(name, STAGES)
    if near and stage.keys() - set(names_of(CustomStage)):
        return f"there is no stage {name!r}. Did you mean {near!r}? A step of your own needs a command"
    return ""


def _nameless(stage: Mapping[str, Node]) -> str:
    """Write that a stage has no name, and which built-in stage has its fields."""
    known = {name: set(names_of(owner)) for name, owner in STAGE_MODELS.items()}
    of = [name for name, fields in known.items() if stage.keys() and stage.keys() <= fields]
    hint = f". These fields belong to name: {of[0]}" if len(of) == 1 else ""
    return f"is missing: each stage needs a name, one of {', '.join(known)} or one of your own{hint}"


def _add_all(
    model: type[BaseModel],
    document: Node,
    error: ValidationError,
    problems: list[SpecProblem],
    ignored: list[FieldPath],
) -> None:
    taken = {(problem.file, problem.line, problem.column) for problem in problems}
    details = error.errors(include_url=False)
    if any(detail["loc"] == ("kind",) and detail["type"] != "missing" for detail in details):
        details = [
            detail for detail in details if detail["loc"] in (("kind",), ("apiVersion",))
        ]  # another kind of file
    for detail in details:
        _, walked = find(document, detail["loc"])
        if any(walked[: len(path)] == path for path in ignored):
            continue
        problem = _problem(model, document, walked, detail)
        place = (problem.file, problem.line, problem.column)
        if detail["type"] == "missing":  # its place is that of the mapping which lacks it
            problems.append(problem)
        elif place not in taken:
            taken.add(place)
            problems.append(problem)


def _problem(model: type[BaseModel], document: Node, walked: FieldPath, detail: Any) -> SpecProblem:
    kind, loc = detail["type"], detail["loc"]
    if kind == "missing":
        owner = model_at(model, document, walked)
        name = str(loc[-1])
        meaning = _description(owner, name)
        return problem_at(document, (*walked, name), f"is missing: {meaning}" if meaning else "is missing")
    if kind == "extra_forbidden":
        return problem_at(document, walked, _unknown(model, document, walked), at_key=True)
    return problem_at(document, walked, in_words(detail, WORDS_OF_PATTERNS), at_key=loc[-1] == "[key]")


def _unknown(model: type[BaseModel], document: Node, walked: FieldPath) -> str:
    name = str(walked[-1])
    owner = model_at(model, document, walked[:-1])
    if place := _MISPLACED.get((owner.__name__, name)):
        return f"is not a known name here. {place}"
    if owner.__name__ == "ModelPipeline":
        for section, below in (("spec", "PipelineSpec"), ("metadata", "Metadata")):
            if any(name in names_of(found) for found in _models_of_field(owner, section) if found.__name__ == below):
                return f"belongs under {section}"
    return f"is not a known name. {nearest(name, names_of(owner))}"


def _description(model: type[BaseModel], alias: str) -> str:
    for name, field in model.model_fields.items():
        if (field.alias or name) == alias:
            return (field.description or "").rstrip(".")
    return ""


def model_at(model: type[BaseModel], document: Node, path: FieldPath) -> type[BaseModel]:
    """Return the model of the mapping that a path leads to."""
    node = document
    owners: tuple[type[BaseModel], ...] = (model,)
    for step in path:
        node = node.content[step]
        if isinstance(step, str):
            owners = tuple(found for owner in owners for found in _models_of_field(owner, step)) or owners
        owners = _by_name(owners, node)
    return owners[0]


@cache
def _models_of_field(model: type[BaseModel], alias: str) -> tuple[type[BaseModel], ...]:
    for name, field in model.model_fields.items():
        if (field.alias or name) == alias:
            return tuple(models_in(field.annotation))
    return ()


def _by_name(owners: tuple[type[BaseModel], ...], node: Node) -> tuple[type[BaseModel], ...]:
    """Choose the kind of a stage by the name in the file."""
    if len(owners) == 1 or not isinstance(node.content, dict) or "name" not in node.content:
        return owners
    name = node.content["name"].content
    wanted = f"{name.capitalize()}Stage" if name in STAGES else "CustomStage"
    return tuple(owner for owner in owners if owner.__name__ == wanted) or owners
