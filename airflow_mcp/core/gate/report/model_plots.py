"""Plots of an evaluation: calibration, confusion matrices, residuals and latency."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from airflow_mcp.core.evaluation.diagnostics import Calibration, ConfusionMatrix, Histogram
from airflow_mcp.core.gate.rules.slices import wilson_interval
from airflow_mcp.core.html.drawing import Scale, scale_over, write

_WIDTH, _LEFT, _RIGHT = 360, 40, 350
_MAX_NAME = 40


class Series(NamedTuple):
    """Measurements of one model."""

    name: str
    """``candidate`` or ``champion``, which also sets the colour."""
    histogram: Histogram


class Mark(NamedTuple):
    """A number to mark on the axis of a histogram."""

    at: float
    label: str
    is_limit: bool = False


def draw_calibration(candidate: Calibration, champion: Calibration | None) -> str:
    """Draw the reliability curve: observed frequency against predicted probability.

    :param candidate: bins of the candidate.
    :param champion: bins of the champion, drawn in the same plot.
    """
    event = "the positive class" if candidate.event == "positive_class" else "a right answer"
    caption = f"Calibration. ECE {write(candidate.ece)}, Brier score {write(candidate.brier)}"
    if champion is not None:
        caption += f"; champion: {write(champion.ece)}, {write(champion.brier)}"
    parts = [_square_axes(), _line(_LEFT, 270, _RIGHT, 20, 'stroke="var(--dim)" stroke-dasharray="4 4"')]
    if champion is not None:
        parts.append(_curve(champion, "champion", dashed=True))
    parts.append(_curve(candidate, "candidate", dashed=False))
    parts.append(_text(195, 302, f"said: probability of {event}", anchor="middle"))
    parts.append(f'<g transform="translate(11 145) rotate(-90)">{_text(0, 0, "happened", anchor="middle")}</g>')
    rows = "".join(
        f'<tr><th scope="row">{part.low:.1f} to {part.high:.1f}</th><td class="number">{part.rows}</td>'
        f'<td class="number">{write(part.mean_probability)}</td>'
        f'<td class="number">{write(part.positives / part.rows if part.rows else None)}</td></tr>'
        for part in candidate.bins
    )
    table = _details(
        "Numbers of the candidate",
        '<thead><tr><th scope="col">Probability</th><th scope="col" class="number">Rows</th>'
        '<th scope="col" class="number">Mean</th><th scope="col" class="number">Happened</th></tr></thead>'
        f"<tbody>{rows}</tbody>",
    )
    note = (
        '<span class="dim">On the dashed diagonal, what the model says is what happens. Bars: 95 % intervals of the '
        "candidate. Circles: candidate, larger with more rows; squares: champion.</span>"
    )
    return _figure(f"{escape(caption)}<br>{note}", _svg(310, "".join(parts), caption), table)


def draw_histograms(title: str, unit: str, series: Sequence[Series], marks: Sequence[Mark] = ()) -> str:
    """Draw histograms below each other on a common axis.

    :param title: what is counted.
    :param unit: unit of the axis.
    :param series: the histograms, at least one.
    :param marks: numbers to mark; a limit far outside is marked at the edge.
    """
    scale = _histogram_scale([item.histogram for item in series], marks)
    height, parts = 36 + 110 * len(series), []
    for number, item in enumerate(series):
        parts.append(_bars(item, scale, top=16 + 110 * number))
    bottom = height - 20
    for tick in scale.ticks():
        x = _x(scale, tick)
        parts.append(_line(x, bottom, x, bottom + 4, 'stroke="var(--dim)"'))
        parts.append(_text(x, bottom + 16, write(tick), anchor="middle"))
    parts += [_mark(mark, scale, bottom) for mark in marks]
    outside = [_outside(item) for item in series]
    caption = f"{escape(title)}, {escape(unit)}"
    note = " ".join(text for text in outside if text)
    said = "; ".join(
        f"{item.name} {write(item.histogram.minimum)} to {write(item.histogram.maximum)}" for item in series
    )
    if note:
        caption += f'<br><span class="dim">{escape(note)}</span>'
    return _figure(caption, _svg(height, "".join(parts), f"{title}, {unit}: {said}"))


def draw_confusions(name: str, matrix: ConfusionMatrix) -> str:
    """Return a confusion matrix as a table; cells get darker with the share of the true class.

    :param name: name of the model, for the caption.
    :param matrix: rows are true, columns predicted.
    """
    head = "".join(f'<th scope="col"><span class="tall">{_short(label)}</span></th>' for label in matrix.labels)
    body = "".join(
        f'<tr><th scope="row">{_short(label)}</th>{_cells(matrix, number)}</tr>'
        for number, label in enumerate(matrix.labels)
    )
    caption = f"Confusions of the {escape(name)}: true class in lines, predicted class in columns; counts of rows"
    if matrix.folded:
        caption += f"; the last line and column stand for {matrix.folded} smaller classes"
    table = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix"><table class="matrix">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    largest = "".join(
        f'<tr><th scope="row">{_short(item.true)}</th><td>{_short(item.predicted)}</td>'
        f'<td class="number">{item.rows}</td></tr>'
        for item in matrix.largest
    )
    frequent = _details(
        "Most frequent confusions",
        '<thead><tr><th scope="col">True</th><th scope="col">Predicted</th><th scope="col" class="number">Rows</th>'
        f"</tr></thead><tbody>{largest}</tbody>",
    )
    return f'<figure class="wide"><figcaption>{caption}</figcaption>{table}{frequent if largest else ""}</figure>'


def _cells(matrix: ConfusionMatrix, line: int) -> str:
    total = sum(matrix.counts[line]) or 1
    cells = []
    for column, count in enumerate(matrix.counts[line]):
        right = ' class="right"' if column == line and not (matrix.folded and line == len(matrix.labels) - 1) else ""
        title = f"{matrix.labels[line]} predicted as {matrix.labels[column]}: {count} rows, {count / total:.1%}"
        share = 0.6 * count / total
        cells.append(f'<td{right} style="--share: {share:.2f}" title="{escape(title, quote=True)}">{count}</td>')
    return "".join(cells)


def _curve(calibration: Calibration, name: str, *, dashed: bool) -> str:
    """Draw a curve over the bins that have rows; a dot is larger when its bin has more rows."""
    most = max((part.rows for part in calibration.bins), default=1) or 1
    points, marks = [], []
    for part in calibration.bins:
        if not part.rows or part.mean_probability is None:
            continue
        x = _LEFT + (_RIGHT - _LEFT) * part.mean_probability
        y = 270 - 250 * part.positives / part.rows
        points.append(f"{x:.1f},{y:.1f}")
        if dashed:
            marks.append(
                f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="var(--page)" {_ink(name)}/>'
            )
            continue
        low, high = wilson_interval(part.positives, part.rows, 0.95)
        marks.append(_line(x, 270 - 250 * low, x, 270 - 250 * high, f'{_ink(name)} stroke-opacity=".5"'))
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2.5 + 3 * (part.rows / most) ** 0.5:.1f}" fill="var(--{name})"/>'
        )
    dashes = ' stroke-dasharray="5 3"' if dashed else ""
    return f'<polyline points="{" ".join(points)}" fill="none" {_ink(name)}{dashes}/>{"".join(marks)}'


def _square_axes() -> str:
    parts = []
    for step in range(0, 11, 2):
        share = step / 10
        x, y = _LEFT + (_RIGHT - _LEFT) * share, 270 - 250 * share
        parts.append(_line(x, 20, x, 270, 'stroke="var(--line)"') + _line(_LEFT, y, _RIGHT, y, 'stroke="var(--line)"'))
        parts.append(
            _text(x, 285, f"{share:.1f}", anchor="middle") + _text(_LEFT - 5, y + 4, f"{share:.1f}", anchor="end")
        )
    return "".join(parts)


def _histogram_scale(histograms: Sequence[Histogram], marks: Sequence[Mark]) -> Scale:
    """Return a scale with every bin, and with every mark that is not so far away that the bins would vanish."""
    edges = [edge for histogram in histograms for edge in (histogram.edges[0], histogram.edges[-1])]
    span = max(edges) - min(edges)
    near = [mark.at for mark in marks if min(edges) - 2 * span <= mark.at <= max(edges) + 2 * span]
    return scale_over([*edges, *near], pad=0.03) or Scale(0.0, 1.0)


def _bars(item: Series, scale: Scale, top: float) -> str:
    most = max(item.histogram.counts) or 1
    base = top + 95
    bars = []
    for number, count in enumerate(item.histogram.counts):
        left, right = (_x(scale, edge) for edge in item.histogram.edges[number : number + 2])
        tall = 80 * count / most
        if count:
            bars.append(
                f'<rect x="{left:.1f}" y="{base - tall:.1f}" width="{max(0.5, right - left - 0.4):.1f}" '
                f'height="{tall:.1f}" fill="var(--{item.name})" fill-opacity=".75"/>'
            )
    axis = _line(_LEFT, base, _RIGHT, base, 'stroke="var(--line)"')
    return axis + "".join(bars) + _text(_LEFT + 4, top + 12, item.name, anchor="start", strong=True)


def _mark(mark: Mark, scale: Scale, bottom: float) -> str:
    x = _x(scale, mark.at)
    label = mark.label
    if mark.at > scale.high:
        label = f"{label} \N{RIGHTWARDS ARROW}"
    elif mark.at < scale.low:
        label = f"\N{LEFTWARDS ARROW} {label}"
    style = 'stroke="var(--ink)" stroke-width="2"' if mark.is_limit else 'stroke="var(--dim)" stroke-dasharray="2 3"'
    anchor = "end" if x > _WIDTH * 0.6 else "start"
    text = _text(x + (-4 if anchor == "end" else 4), 9, label, anchor=anchor, strong=True) if label else ""
    return _line(x, 0, x, bottom, style) + text


def _outside(item: Series) -> str:
    found = item.histogram
    parts = [f"{found.below} below"] if found.below else []
    parts += [f"{found.above} above, up to {write(found.maximum)}"] if found.above else []
    return f"{item.name}: {', '.join(parts)}." if parts else ""


def _x(scale: Scale, value: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * scale.share(value)


def _svg(height: float, content: str, label: str) -> str:
    said = escape(label, quote=True)
    return f'<svg class="plot" viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{said}">{content}</svg>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def _text(x: float, y: float, text: str, *, anchor: str, strong: bool = False) -> str:
    style = ' class="strong"' if strong else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'


def _ink(name: str) -> str:
    return f'stroke="var(--{name})" stroke-width="2"'


def _figure(caption: str, *content: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{''.join(content)}</figure>"


def _details(summary: str, table: str) -> str:
    return f"<details><summary>{escape(summary)}</summary><table>{table}</table></details>"


def _short(label: str) -> str:
    """Return the name of a class, shortened if it is too long, with the whole name as a hint."""
    if len(label) <= _MAX_NAME:
        return escape(label)
    return f'<span title="{escape(label, quote=True)}">{escape(label[: _MAX_NAME - 1])}\N{HORIZONTAL ELLIPSIS}</span>'
