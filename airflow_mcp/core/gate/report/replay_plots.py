"""The result of a replay of logged requests, for the gate report."""

from __future__ import annotations

from html import escape

from airflow_mcp.core.evaluation.replay import ModelTroubles, ReplayEvidence, ReplaySegment
from airflow_mcp.core.gate.report.model_plots import Mark, Series, draw_histograms
from airflow_mcp.core.gate.rules.slices import wilson_interval
from airflow_mcp.core.html.drawing import BOUND, DOT, INTERVAL, Scale, Strip, draw_strip, legend, scale_over, write

_CONFIDENCE = 0.95


def render_replay(replay: ReplayEvidence, limit: float | None) -> str:
    """Return the section on a replay: what was replayed, which answers change, by how much and where.

    :param replay: result of the replay.
    :param limit: largest share of changed answers that the gate accepts; None when it has no such rule.
    """
    parts = [_summary(replay), _segments(replay, limit)]
    drawn = []
    if replay.deltas is not None:
        of = "prediction" if replay.deltas.of == "prediction" else "probability"
        title = f"Candidate minus champion: {of}, mean {write(replay.deltas.mean)}"
        unit = "in its units" if of == "prediction" else f"95 % of changes up to {write(replay.deltas.p95_absolute)}"
        drawn.append(draw_histograms(title, unit, [Series("candidate", replay.deltas.histogram)], [Mark(0.0, "")]))
    drawn.append(_transitions(replay))
    parts.append(f'<div class="plots">{"".join(drawn)}</div>')
    parts += [_troubles("candidate", replay.candidate_troubles), _troubles("champion", replay.champion_troubles)]
    parts.append(_examples(replay))
    return "<h2>Replay of logged requests</h2>" + "".join(parts)


def _summary(replay: ReplayEvidence) -> str:
    said = [
        f"The newest {replay.requests} of {replay.available} requests",
        f" from {escape(replay.first)} to {escape(replay.last)}" if replay.first else "",
        f" in {replay.files} files of <code>{escape(replay.source)}</code>. ",
        f"{replay.compared} were answered by both models; <strong>{replay.flips} flip</strong>",
        f", and the candidate does not answer {replay.candidate_only_missing} that the champion answers"
        if replay.candidate_only_missing
        else "",
        f". {replay.left_out} are unusable" if replay.left_out else "",
        ".",
    ]
    if replay.value is not None:
        said.append(f" The flips are worth {replay.value.flipped:,.6g} of {replay.value.compared:,.6g}")
        said.append(f"; {replay.value.missing} requests have no value." if replay.value.missing else ".")
    if replay.recorded is not None:
        said.append(
            f" The champion answers {replay.recorded.different} of {replay.recorded.requests} requests otherwise than "
            "production did then."
        )
    return f"<p>{''.join(said)}</p>"


def _segments(replay: ReplayEvidence, limit: float | None) -> str:
    if not replay.segments:
        return ""
    strips = [_strip(part, limit) for part in replay.segments]
    scale = scale_over([0.0, *(number for strip in strips for number in strip.numbers)])
    rows = "".join(_segment(part, strip, scale, limit) for part, strip in zip(replay.segments, strips, strict=True))
    entries = [(DOT, "share of requests that change"), (INTERVAL, "95 % interval")]
    explained = legend(*entries, *([(BOUND, "limit for all requests")] if limit is not None else []))
    head = (
        '<th scope="col">Segment</th><th scope="col" class="strip">Changes, on one scale from 0</th>'
        '<th scope="col" class="number">Share</th><th scope="col" class="number">Flips</th>'
        '<th scope="col" class="number">Compared</th><th scope="col" class="number">No answer</th>'
        '<th scope="col" class="number">Value of flips</th>'
    )
    return (
        f'{explained}<div class="scroll" tabindex="0" role="region" aria-label="Segments"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _strip(part: ReplaySegment, limit: float | None) -> Strip:
    if not part.judged:
        return Strip(None, limit)
    low, high = wilson_interval(part.changed, part.judged, _CONFIDENCE)
    return Strip(part.changed / part.judged, limit, low, high, None, "<" if limit is not None else "")


def _segment(part: ReplaySegment, strip: Strip, scale: Scale | None, limit: float | None) -> str:
    beyond = limit is not None and strip.value is not None and strip.value > limit
    drawn = draw_strip(strip, scale, "failed" if beyond else "candidate")
    numbers = (write(strip.value), part.flips, part.compared, part.candidate_only_missing, write(part.value_flipped))
    cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
    name = escape(f"{part.column} = {part.value}")
    return f'<tr><th scope="row"><code>{name}</code></th><td class="strip">{drawn}</td>{cells}</tr>'


def _transitions(replay: ReplayEvidence) -> str:
    if not replay.transitions:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(item.champion)}</th><td>{escape(item.candidate)}</td>'
        f'<td class="number">{item.requests}</td><td class="number">{write(item.value)}</td></tr>'
        for item in replay.transitions
    )
    head = (
        '<th scope="col">Champion</th><th scope="col">Candidate</th><th scope="col" class="number">Requests</th>'
        '<th scope="col" class="number">Value</th>'
    )
    return (
        f"<figure><figcaption>Changes of class, most frequent first</figcaption><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></figure>"
    )


def _troubles(name: str, troubles: ModelTroubles) -> str:
    if not (troubles.unfit or troubles.failed):
        return ""
    reasons = "".join(f"<li>{item.requests} times: {escape(item.reason)}</li>" for item in troubles.reasons)
    return (
        f"<p>The {name} has no answer to {troubles.unfit} requests that do not fit its signature and to "
        f"{troubles.failed} that it fails on:</p><ul>{reasons}</ul>"
    )


def _examples(replay: ReplayEvidence) -> str:
    if not replay.examples:
        return ""
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(item.request)}</code></th><td>{escape(item.timestamp)}</td>'
        f"<td>{escape(item.champion)}</td><td>{escape(item.candidate)}</td>"
        f'<td class="number">{write(item.delta)}</td></tr>'
        for item in replay.examples
    )
    head = (
        '<th scope="col">Request</th><th scope="col">Time</th><th scope="col">Champion</th>'
        '<th scope="col">Candidate</th><th scope="col" class="number">Change</th>'
    )
    return (
        f"<details><summary>{len(replay.examples)} flips with the largest changes</summary>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )
