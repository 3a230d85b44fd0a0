"""The HTML frame of the report: style, script, sections, tables."""

from __future__ import annotations

from nas.report.svg import words

_STYLE = """
:root { --ink: #1c2530; --quiet: #667384; --rule: #dde3ea; --blue: #1a5fb4; --green: #1a7f4b; --red: #b3261e;
  --pale: #b9c3cf; --amber: #8a5a00; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; max-width: 1200px; margin: 2em auto;
  padding: 0 1.2em; color: var(--ink); background: #fff; }
h1 { font-size: 1.55em; line-height: 1.25; margin: 0 0 .1em; overflow-wrap: anywhere; }
h2 { font-size: 1.15em; margin: 2.4em 0 .6em; padding-bottom: .25em; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1em; margin: 1.6em 0 .4em; }
p { max-width: 75em; margin: .5em 0; }
.quiet { color: var(--quiet); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92em; font-variant-numeric: tabular-nums; }
table.wide { width: 100%; font-size: .83em; } .wide th, .wide td { padding: .4em; }
th { font-weight: 600; color: var(--quiet); vertical-align: bottom; }
th, td { text-align: right; padding: .32em .6em; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child, th.words, td.words { text-align: left; }
td.words { white-space: normal; min-width: 8em; overflow-wrap: anywhere; }
tr.reverted td { color: var(--quiet); } tr.deployed td { font-weight: 600; background: #f3f8f5; }
.verdict { max-width: none; padding: .8em 1em; border-left: 5px solid var(--green); background: #eef8f2;
  overflow-wrap: anywhere; }
.verdict.broken { border-color: var(--red); background: #fdf0ef; }
.warnings { padding: .6em 1em .6em 2.2em; margin: .6em 0; border-left: 5px solid #d9a21b; background: #fdf8ea;
  color: var(--amber); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: .8em; margin: 1.1em 0; }
.tile { border: 1px solid var(--rule); border-radius: 6px; padding: .6em .9em; }
.tile b { display: block; font-size: 1.4em; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--quiet); font-size: .86em; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 0 2.5em; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15em 1em; margin: .3em 0; align-content: start; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.limit-row { display: grid; grid-template-columns: 11em 1fr 23em; gap: 1em; align-items: center; margin: .35em 0; }
.bar { background: #e8edf2; height: .8em; border-radius: 3px; overflow: hidden; }
.bar div { background: var(--green); height: 100%; } .bar.broken div { background: var(--red); }
.bar.recall { width: 9em; height: .6em; display: inline-block; } .bar.recall div { background: var(--blue); }
.picture { overflow-x: auto; }
.picture svg { display: block; width: 100%; min-width: 640px; height: auto; font-size: 12.5px; fill: var(--ink);
  font-variant-numeric: tabular-nums; }
.candidates .picture svg { max-width: 860px; }
.axis { stroke: #8c98a6; } .grid { stroke: #edf0f4; } .limit { stroke: var(--red); stroke-dasharray: 5 4; }
.steps { fill: none; stroke: var(--blue); stroke-width: 1.5; } .whisker { stroke: var(--ink); stroke-width: 1.2; }
.picture text { paint-order: stroke; stroke: #fff; stroke-width: 3px; stroke-linejoin: round; }
.picture text.inside { stroke: none; } svg text.small { font-size: 11.5px; }
svg text.quiet { fill: var(--quiet); } svg text.red { fill: var(--red); }
svg text.green { fill: var(--green); } svg text.strong { font-weight: 600; }
.front { fill: var(--blue); } .other { fill: var(--pale); } circle.chosen, rect.chosen { fill: var(--green); }
.mark { stroke: #fff; stroke-width: 1; } .mark.winner { fill: var(--green); }
.mark.deployed { fill: none; stroke: var(--green); stroke-width: 2; pointer-events: all; }
.mark.baseline { fill: #c4660a; }
rect.accepted { fill: #7ba6dc; } rect.deployed, .live { fill: var(--blue); } rect.reverted { fill: #d5dce4; }
rect.deployed { fill: var(--green); } text.reverted { fill: var(--quiet); } .peak { fill: var(--red); }
.end { fill: #fff; stroke: #8c98a6; } .shortcut { fill: none; stroke: #8c98a6; stroke-width: 1.5; }
.block { fill: #cfe0f5; stroke: #7ba6dc; } .block.conv { fill: #e3e8ee; stroke: #9aa7b5; }
.block.separable { fill: #d3ecdd; stroke: #7dbb97; } .block.fused_inverted_residual { fill: #f6e3c8; stroke: #d3a45f; }
.block.residual { fill: #e6dcf3; stroke: #ab93cf; }
.legend { display: flex; flex-wrap: wrap; gap: .2em 1.4em; font-size: .88em; color: var(--quiet); }
.legend span { display: inline-flex; align-items: center; gap: .4em; } .sign { width: 15px; height: 15px; }
.confusion td, .confusion th { padding: .3em .5em; min-width: 2.6em; text-align: center; border: 1px solid #fff; }
.confusion tbody th { text-align: right; }
.confusion.long thead th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left;
  vertical-align: middle; padding: .5em 0; }
table.names th, table.names td { text-align: left; }
pre { background: #f4f6f8; padding: .8em 1em; border-radius: 6px; overflow-x: auto; font-size: .87em; }
code { background: #f1f4f7; padding: .1em .3em; border-radius: 3px; overflow-wrap: anywhere; }
#tip { position: fixed; z-index: 9; pointer-events: none; max-width: 26em; padding: .3em .6em; border-radius: 4px;
  background: #1c2530; color: #fff; font-size: .86em; }
@media (max-width: 640px) { .limit-row { grid-template-columns: 1fr; gap: .2em; } }
@media print { body { margin: 0; max-width: none; font-size: 11px; } #tip { display: none; }
  svg, tr, .tile, pre { break-inside: avoid; } h2, h3 { break-after: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""

# Without it the titles inside the pictures are shown by the browser itself, later and smaller.
_SCRIPT = """
const tip = document.getElementById("tip");
for (const words of document.querySelectorAll("svg title")) {
  const shape = words.parentElement;
  shape.dataset.tip = words.textContent;
  shape.setAttribute("aria-label", words.textContent);
  words.remove();
}
document.addEventListener("pointermove", (event) => {
  const shape = event.target.closest("[data-tip]");
  tip.hidden = !shape;
  if (!shape) return;
  tip.textContent = shape.dataset.tip;
  tip.style.top = event.clientY + 14 + "px";
  tip.style.left = Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)) + "px";
});
"""


def page(title: str, *parts: str) -> str:
    """A page that needs nothing else; ``parts`` are markup, ``title`` is text."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{words(title)}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + f'\n<div id="tip" role="tooltip" hidden></div>\n<script>{_SCRIPT}</script>\n</body></html>\n'
    )


def section(name: str, head: str, *parts: str) -> str:
    """A part of the page under a heading; ``name`` is its id."""
    return f'<section id="{name}" class="{name}"><h2>{words(head)}</h2>{"".join(parts)}</section>'


def percent(share: float | None) -> str:
    """A share in 0..1 as it is shown everywhere in the page; a dash where it is not known.

    >>> percent(0.12345), percent(None)
    ('12.35 %', '–')
    """
    return "–" if share is None else f"{100 * share:.2f} %"


def listing(pairs: dict[str, object]) -> str:
    """Names and values under each other.

    >>> listing({"seed": 0})
    '<dl><dt>seed</dt><dd>0</dd></dl>'
    """
    return "<dl>" + "".join(f"<dt>{words(name)}</dt><dd>{words(value)}</dd>" for name, value in pairs.items()) + "</dl>"


def grid(head: list[str], rows: list[list[str]], kind: str = "", row_kinds: list[str] | None = None) -> str:
    """A table of text; the last column is left as words where its head is empty."""
    kinds = row_kinds or [""] * len(rows)
    last = ' class="words"' if head[-1] == "" else ""
    marks = [""] * (len(head) - 1) + [last]
    top = "".join(f"<th{mark}>{words(cell)}</th>" for mark, cell in zip(marks, head, strict=True))
    body = "".join(
        f'<tr class="{row_kind}">'
        + "".join(f"<td{mark}>{words(cell)}</td>" for mark, cell in zip(marks, row, strict=True))
        + "</tr>"
        for row, row_kind in zip(rows, kinds, strict=True)
    )
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
