"""Frame and style of the reports: light and dark, on paper and on a phone. No meaning is carried by colour alone.

The colours are those of Okabe and Ito (2008), which people with any colour vision can tell apart, darkened or lightened
until text in them has a contrast of 4.5 or more.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #57626f; --line: #d5dbe2; --page: #fff; --card: #f5f7f9;
  --passed: #00795a; --failed: #b34700; --inconclusive: #8a6100; --error: #9b3a79; --none: #57626f;
  --candidate: #0067a3; --champion: #b34700; --heat: 0 103 163; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9aa7b4; --line: #343b44;
  --page: #0d1117; --card: #161b22; --passed: #35c596; --failed: #ff8f4d; --inconclusive: #e0ac2f; --error: #e08fc0;
  --none: #9aa7b4; --candidate: #5cb8f2; --champion: #ff8f4d; --heat: 92 184 242; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
  max-width: 68rem; padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
h3 { font-size: .95rem; margin: 1.2rem 0 .3rem; } p { margin: .4rem 0; }
.verdict { border-left: .5rem solid var(--tone); background: var(--card); padding: 1rem 1.25rem; border-radius: .4rem; }
.verdict strong { color: var(--tone); text-transform: uppercase; letter-spacing: .04em; }
.warning { border: 2px solid var(--inconclusive); padding: .75rem 1.25rem; border-radius: .4rem; margin: 1rem 0 0; }
.warning strong { color: var(--inconclusive); }
.scroll { overflow-x: auto; } .scroll:focus-visible { outline: 2px solid var(--candidate); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--dim); font-weight: 600; font-size: .85rem; }
tbody th { color: var(--ink); font-size: inherit; font-weight: 400; min-width: 8.5rem; overflow-wrap: anywhere; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.rule { min-width: 10rem; max-width: 18rem; } .strip { min-width: 11rem; width: 26%; } .why { min-width: 17rem; }
.badge { color: var(--tone); font-weight: 600; white-space: nowrap; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
.dim { color: var(--dim); }
.legend { color: var(--dim); font-size: .85rem; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
.legend svg { vertical-align: -.1rem; margin-right: .3rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem 2rem; }
figure { margin: .5rem 0 1rem; max-width: 34rem; } figure.wide { max-width: none; } figcaption { font-size: .9rem; }
svg { display: block; overflow: visible; } .legend svg { display: inline; }
svg.plot { width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--dim); } svg text.strong { fill: var(--ink); }
.ends { display: flex; justify-content: space-between; font-weight: 400; font-variant-numeric: tabular-nums; }
.matrix { width: auto; } .matrix td, .matrix th { padding: .2rem .35rem; border: 1px solid var(--line); }
.matrix td { text-align: right; font-variant-numeric: tabular-nums; background: rgb(var(--heat) / var(--share)); }
.matrix td.right { outline: 2px solid var(--ink); outline-offset: -2px; font-weight: 600; }
.matrix thead th { vertical-align: bottom; } .matrix tbody th { max-width: 12rem; min-width: 4rem; }
.matrix .tall { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 9rem; white-space: nowrap;
  overflow: hidden; }
summary { cursor: pointer; color: var(--dim); margin-top: .6rem; }
@media (max-width: 44rem) {
  .rules thead { display: none; } .rules tr { display: block; border-bottom: 1px solid var(--line); padding: .5rem 0; }
  .rules td, .rules th { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem 0;
    text-align: right; max-width: none; min-width: 0; width: auto; }
  .rules th, .rules .why { display: block; text-align: left; } .rules .strip { display: block; }
  .rules td[data-label]::before { content: attr(data-label); color: var(--dim); }
}
@media print {
  html { font-size: 11px; }
  body { margin: 0; max-width: none; font-size: 10.5px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .scroll { overflow: visible; } tr, figure, .verdict { break-inside: avoid; } h2, h3 { break-after: avoid; }
}
"""


def html_page(title: str, parts: Iterable[str], style: str = STYLE) -> str:
    """Return a complete HTML document.

    :param title: title of the page, as plain text.
    :param parts: HTML of each part of its body; empty ones are left out.
    :param style: its style sheet.
    """
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{style}</style></head><body>\n" + "\n".join(part for part in parts if part) + "\n</body></html>\n"
    )


def table_head(*names: str | tuple[str, int]) -> str:
    """Return the head of a table; a name in a tuple is the head of a column of numbers."""
    cells = ((name, "") if isinstance(name, str) else (name[0], ' class="number"') for name in names)
    return "".join(f'<th scope="col"{style}>{escape(name)}</th>' for name, style in cells)


def scrolled(name: str, head: str, rows: str, kind: str = "") -> str:
    """Return a table that scrolls on its own when the page is too narrow."""
    style = f' class="{kind}"' if kind else ""
    thead = f"<thead><tr>{head}</tr></thead>" if head else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name, quote=True)}"><table{style}>{thead}'
        f"<tbody>{rows}</tbody></table></div>"
    )
