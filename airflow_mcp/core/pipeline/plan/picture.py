"""A plan as a picture: text, SVG or Mermaid. Tasks are drawn below what they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

from airflow_mcp.core.pipeline.plan.entities import PipelinePlan

_BOX_HEIGHT, _LETTER, _GAP, _LAYER_GAP, _MARGIN = 34, 8, 28, 46, 16
_LANE = "@"
"""Marks the name of a lane; no task id can contain it."""
_STYLE = (
    "text{font:14px sans-serif;text-anchor:middle;dominant-baseline:central}"
    "rect{fill:#e8f0fe;stroke:#3b5b92}.filled rect{stroke-dasharray:5 3;fill:#f6f6f6}"
    "path{fill:none;stroke:#5f6368;stroke-width:1.3;marker-end:url(#arrow)}"
)


def direct_needs(plan: PipelinePlan) -> dict[str, tuple[str, ...]]:
    """Return what each task waits for, without needs that follow from its other needs.

    :param plan: the plan.
    """
    above: dict[str, set[str]] = {}
    for task in plan.every_task:
        above[task.task_id] = set(task.needs).union(*(above[need] for need in task.needs))
    return {
        task.task_id: tuple(
            need for need in task.needs if not any(need in above[other] for other in task.needs if other != need)
        )
        for task in plan.every_task
    }


def layers(needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Sort tasks into layers, each below everything that it needs.

    :param needs: what each task waits for; every task comes after what it needs.
    """
    depth: dict[str, int] = {}
    for task_id, before in needs.items():
        depth[task_id] = 1 + max((depth[each] for each in before), default=-1)
    found: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for task_id, level in depth.items():
        found[level].append(task_id)
    return found


def text_picture(plan: PipelinePlan) -> str:
    """Draw a plan as text: a tree in which a task stands below the one that it waits for.

    A task that waits for several stands below the lowest of them, and names all. ``*`` marks tasks that are not in the
    file.

    :param plan: the plan.
    """
    needs = direct_needs(plan)
    level = {task_id: number for number, row in enumerate(layers(needs)) for task_id in row}
    below: dict[str, list[str]] = {}
    for task_id, before in needs.items():
        parent = max(before, key=lambda need: (level[need], before.index(need)), default="")
        below.setdefault(parent, []).append(task_id)
    lines = [plan.dag_id]
    left = [(task_id, 0) for task_id in reversed(below.get("", []))]
    while left:
        task_id, depth = left.pop()
        mark = "*" if plan.task(task_id).is_filled_in else ""
        after = f"  (after {', '.join(needs[task_id])})" if len(needs[task_id]) > 1 else ""
        lines.append(f"{'   ' * depth}└─ {task_id}{mark}{after}")
        left += [(each, depth + 1) for each in reversed(below.get(task_id, []))]
    return "\n".join([*lines, "", "* filled in, not named in the file; (after ...) all tasks that it waits for", ""])


def mermaid(plan: PipelinePlan) -> str:
    """Return a plan as a Mermaid flowchart, for Markdown pages.

    :param plan: the plan.
    """
    needs = direct_needs(plan)
    number = {task_id: f"t{position}" for position, task_id in enumerate(needs)}
    boxes = [f'    {number[task_id]}["{task_id}"]' for task_id in needs]
    edges = [f"    {number[need]} --> {number[task_id]}" for task_id, before in needs.items() for need in before]
    return "\n".join(["flowchart TD", *boxes, *edges, ""])


def svg(plan: PipelinePlan) -> str:
    """Draw a plan as an SVG document; dashed boxes are tasks that are not in the file.

    :param plan: the plan.
    """
    needs = direct_needs(plan)
    rows, routes = _routed(needs)
    widths = [sum(map(_width, row)) + _GAP * (len(row) - 1) for row in rows]
    width = max(widths, default=0) + 2 * _MARGIN
    middle: dict[str, tuple[float, float]] = {}
    above: dict[str, list[str]] = {}
    for route in routes:
        for upper, lower in pairwise(route):
            above.setdefault(lower, []).append(upper)
    for level, row in enumerate(rows):
        left = (width - widths[level]) / 2
        for name in sorted(row, key=lambda name: _mean([middle[upper][0] for upper in above.get(name, ())])):
            middle[name] = (left + _width(name) / 2, _MARGIN + level * (_BOX_HEIGHT + _LAYER_GAP))
            left += _width(name) + _GAP
    height = 2 * _MARGIN + len(rows) * _BOX_HEIGHT + (len(rows) - 1) * _LAYER_GAP
    edges = (_edge([middle[name] for name in route]) for route in routes)
    boxes = (_box(plan, task_id, *middle[task_id]) for task_id in needs)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}">\n<title>{escape(plan.dag_id)}</title>\n<style>{_STYLE}</style>\n'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<polygon points="0,0 8,4 0,8" fill="#5f6368"/></marker></defs>\n' + "\n".join([*edges, *boxes]) + "\n</svg>\n"
    )


def _routed(needs: Mapping[str, Sequence[str]]) -> tuple[list[list[str]], list[list[str]]]:
    """Reserve a lane where an edge passes a layer, so that no edge runs behind a box.

    :return: the layers with their lanes, and for each edge the boxes and lanes that it passes.
    """
    rows = layers(needs)
    level = {task_id: number for number, row in enumerate(rows) for task_id in row}
    routes = []
    for task_id, before in needs.items():
        for need in before:
            lanes = [f"{need}{_LANE}{number}" for number in range(level[need] + 1, level[task_id])]
            for number, lane in enumerate(lanes, level[need] + 1):
                if lane not in rows[number]:
                    rows[number].append(lane)
            routes.append([need, *lanes, task_id])
    return rows, routes


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _width(name: str) -> int:
    return 0 if _LANE in name else len(name) * _LETTER + 24


def _edge(points: Sequence[tuple[float, float]]) -> str:
    x, y = points[0]
    path = [f"M{x:g} {y + _BOX_HEIGHT:g}"]
    for (x1, y1), (x2, y2) in pairwise(points):
        bend = (y1 + _BOX_HEIGHT + y2) / 2
        path.append(f"C{x1:g} {bend:g} {x2:g} {bend:g} {x2:g} {y2:g}")
        if (x2, y2) != points[-1]:
            path.append(f"V{y2 + _BOX_HEIGHT:g}")
    return f'<path d="{" ".join(path)}"/>'


def _box(plan: PipelinePlan, task_id: str, x: float, y: float) -> str:
    task, width = plan.task(task_id), _width(task_id)
    kind = ' class="filled"' if task.is_filled_in else ""
    return (
        f'<g{kind}><title>{escape(task.origin)}</title><rect x="{x - width / 2:g}" y="{y:g}" width="{width}" '
        f'height="{_BOX_HEIGHT}" rx="6"/><text x="{x:g}" y="{y + _BOX_HEIGHT / 2:g}">{escape(task_id)}</text></g>'
    )
