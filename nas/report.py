"""A run as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import optuna

from nas.plots import pareto_points, pareto_svg
from nas.results import COLUMNS, cells

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1150px; margin: 2em auto; padding: 0 1em; color: #1c2530; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3em .6em; border-bottom: 1px solid #dde3ea; }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
td:not(:last-child) { white-space: nowrap; }
.verdict { padding: .8em 1em; border-left: 5px solid #1a7f4b; background: #eef8f2; }
.verdict.broken { border-color: #b3261e; background: #fdf0ef; }
.undone td { color: #7a8694; } .deployed td { font-weight: 600; }
.bar { background: #e5eaf0; height: .7em; width: 100%; } .bar div { background: #1a7f4b; height: 100%; }
.bar.broken div { background: #b3261e; }
svg { width: 100%; max-width: 720px; font-size: 12px; fill: #1c2530; }
.axis { stroke: #7a8694; } .limit { stroke: #b3261e; stroke-dasharray: 5 4; }
.steps { fill: none; stroke: #1a5fb4; } circle.front { fill: #1a5fb4; } circle.other { fill: #b0bac6; }
code { background: #f1f4f7; padding: .1em .3em; }
"""


def render(metrics: Mapping[str, Any], study: optuna.Study) -> str:
    """The page of a run from its metrics.json and its study."""
    broken = "" if metrics["kept"] else " broken"
    limit = metrics["asked"].get("latency_ms")
    trials = ", ".join(f"{count} {state}" for state, count in sorted(metrics["trials"].items()))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fitnas: {escape(metrics["asked"]["data"])}</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><style>{_STYLE}</style></head><body>
<h1>{escape(metrics["deployed"])} for {escape(metrics["asked"]["device"])}</h1>
<p class="verdict{broken}">{escape(metrics["verdict"])}.</p>
<h2>Budget</h2>{_budget(metrics)}
<h2>From teacher to deployed file</h2>{_table(metrics)}
<p>Latency: {escape(metrics["final"]["latency_source"])}, batch 1, one thread. File bytes are of the ONNX file. Peak RAM
is planned from the lifetimes of the activations. Test images were read once, after all decisions.</p>
<h2>Candidates</h2>{pareto_svg(pareto_points(study), limit)}
<p>Trials: {escape(trials)}. COMPLETE were trained; PRUNED broke the budget or repeated another, and cost no training.
The blue line joins those that no other one beats in both accuracy and latency.</p>
<h2>Use it</h2>
<p><code>onnxruntime.InferenceSession("{escape(metrics["deployed"])}")</code>: input <code>input</code>, float32
(N, C, H, W); output <code>classifier</code>, logits of {escape(", ".join(metrics["classes"]))}. How an image becomes
the input stands in the file's metadata under <code>fitnas.preprocessing</code>.</p>
<p>The command <code>nas run config.toml</code> with another <code>--out</code> repeats the run.</p>
</body></html>
"""


def _budget(metrics: Mapping[str, Any]) -> str:
    if not metrics["excess"]:
        return "<p>No limit was given.</p>"
    rows = []
    for name, excess in metrics["excess"].items():
        share = 100 * (1 + excess)
        broken = " broken" if excess > 0 else ""
        rows.append(
            f"<p>{escape(name)}: {share:.1f} % of {metrics['asked'][name]:g}</p>"
            f'<div class="bar{broken}"><div style="width:{min(share, 100):.1f}%"></div></div>'
        )
    return "".join(rows)


def _table(metrics: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *COLUMNS))
    body = []
    for row in metrics["rows"]:
        kind = "undone" if row.get("why_undone") else "deployed" if row.get("deployed") else ""
        body.append(f'<tr class="{kind}">' + "".join(f"<td>{escape(cell)}</td>" for cell in cells(row)) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
