"""A plan drawn as text, SVG and Mermaid."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from airflow_mcp.core.pipeline.plan.picture import direct_needs, layers, mermaid, svg, text_picture
from airflow_mcp.dag_rendering.loader import load_pipeline_file
from airflow_mcp.dag_rendering.plans import plan_pipeline
from tests.support.paths import PIPELINES

PLAN = plan_pipeline(load_pipeline_file(PIPELINES / "churn.yaml"))


def test_edges_that_follow_from_others_are_not_drawn() -> None:
    needs = direct_needs(PLAN)
    assert "begin" in PLAN.task("promote").needs
    assert needs["promote"] == ("load_check",)
    assert needs["train_deep"] == ("pin_data", "lint")


def test_each_task_stands_below_everything_it_needs() -> None:
    rows = layers(direct_needs(PLAN))
    level = {task_id: number for number, row in enumerate(rows) for task_id in row}
    assert level.keys() == {task.task_id for task in PLAN.tasks}
    assert all(level[need] < level[task.task_id] for task in PLAN.tasks for need in task.needs)
    assert ["train_small", "train_deep"] in rows
    assert layers({}) == []


def test_the_text_marks_what_is_filled_in_and_names_several_tasks_that_are_waited_for() -> None:
    text = text_picture(PLAN)
    assert text.startswith("churn\n└─ begin*\n   └─ build\n      └─ lint\n")
    assert "└─ train_deep  (after pin_data, lint)\n" in text
    assert "└─ gate\n" in text


def test_in_the_text_each_task_stands_below_a_task_that_it_waits_for_and_others_are_named() -> None:
    needs, above, drawn = direct_needs(PLAN), [""], []
    for line in text_picture(PLAN).partition("\n\n")[0].splitlines()[1:]:
        indent, _, written = line.partition("└─ ")
        task_id, _, after = written.partition("  (after ")
        task_id = task_id.rstrip("*")
        above[len(indent) // 3 + 1 :] = [task_id]
        parent = above[-2]
        assert parent in needs[task_id] or not (parent or needs[task_id])
        assert after == (f"{', '.join(needs[task_id])})" if len(needs[task_id]) > 1 else "")
        drawn.append(task_id)
    assert sorted(drawn) == sorted(needs)


def test_the_svg_has_a_box_for_each_task_and_a_line_for_each_edge_inside_the_picture() -> None:
    root = ElementTree.fromstring(svg(PLAN))
    name = "{http://www.w3.org/2000/svg}"
    boxes = root.findall(f".//{name}rect")
    assert len(boxes) == len(PLAN.tasks)
    assert len(root.findall(f".//{name}path")) == sum(len(before) for before in direct_needs(PLAN).values())
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for box in boxes:
        assert 0 <= float(box.attrib["x"]) <= width - float(box.attrib["width"])
        assert 0 <= float(box.attrib["y"]) <= height - float(box.attrib["height"])
    dashed = root.findall(f".//{name}g[@class='filled']")
    assert len(dashed) == sum(task.is_filled_in for task in PLAN.tasks)


def test_no_line_of_the_svg_runs_behind_a_box_that_it_passes() -> None:
    root = ElementTree.fromstring(svg(PLAN))
    name = "{http://www.w3.org/2000/svg}"
    boxes = [{key: float(box.attrib[key]) for key in ("x", "y", "width", "height")} for box in root.iter(f"{name}rect")]
    passes = [
        (float(x), float(y), float(end))
        for path in root.iter(f"{name}path")
        for x, y, end in re.findall(r"([\d.]+) ([\d.]+) V([\d.]+)", path.attrib["d"])
    ]
    assert len(passes) == 2  # from pin_data past lint to both trainings
    for x, top, bottom in passes:
        for box in boxes:
            is_beside = not box["x"] <= x <= box["x"] + box["width"]
            assert is_beside or bottom <= box["y"] or top >= box["y"] + box["height"]


def test_the_mermaid_chart_has_a_line_for_each_task_and_each_edge() -> None:
    lines = mermaid(PLAN).splitlines()
    assert lines[0] == "flowchart TD"
    assert sum(" --> " in line for line in lines) == sum(len(before) for before in direct_needs(PLAN).values())
    assert '    t0["begin"]' in lines
