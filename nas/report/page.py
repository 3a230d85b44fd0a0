"""Renders the report of a run as one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from markupsafe import Markup

from compress.data.preprocessing import METADATA_KEY
from nas.config import Config
from nas.report.candidates_section import candidates_section
from nas.report.charts import architecture_svg, memory_svg, stages_svg
from nas.report.compression_page import is_compression, render_compression_folder
from nas.report.html import grid, listing, note, page, part, percent, section
from nas.report.plan_section import plan_section
from nas.report.predictions_section import data_section, on_test_section
from nas.report.run_files import belongs_to_a_run, read_run
from nas.report.svg import element, joined
from nas.results.collect import LIMITS, compared_text, limited_values, points_text, quantity_text, value_sources

Metrics = Mapping[str, Any]

_ENVIRONMENT = {
    "python": "Python", "cores": "CPU cores", "cpu": "CPU", "machine": "architecture",
    **{name: f"CPU {name}" for name in ("family", "model", "stepping", "flags", "caches")},
}  # fmt: skip
_C99_FACTS = (
    ("stack", "stack_bytes", "bytes"), ("code", "code_bytes", "bytes"), ("constants", "constant_bytes", "bytes"),
    ("instructions per inference", "instructions", ""),
)  # fmt: skip
_HEAD = ["", "val. accuracy", "test accuracy (95% CI)", "balanced accuracy", "parameters", "MACs", "file size (bytes)",
         "latency, ms (90% interval)", "latency source", "estimated latency, ms", "peak RAM, bytes", ""]  # fmt: skip


def render(metrics: Metrics, study: optuna.Study) -> str:
    """The page of a run from its metrics.json and its study."""
    asked = metrics["asked"]
    head = joined(
        (
            element("h1", f"{asked['data']} classifier for {asked['device']}"),
            note(f"Image classifier, {len(metrics['classes'])} classes, dataset: {asked['data']}"),
            element("p", metrics["verdict"], class_="verdict" if metrics["budget_met"] else "verdict broken"),
            part("warnings", metrics["warnings"]),
            _tiles(metrics["final"]),
        )
    )
    return page(
        f"fitnas: {asked['data']}",
        head,
        section("budget", "Limits", _limits(metrics)),
        section("candidates", "Candidates", *candidates_section(metrics, study)),
        *([section("c99", "C99 program", _c99(metrics))] if metrics.get("c99") else []),
        section("stages", "Compression steps", *_stages(metrics)),
        section("architecture", "Architecture", architecture_svg(metrics["architecture"])),
        section("memory", "Activation memory during inference", *_memory(metrics)),
        on_test_section(metrics),
        data_section(metrics),
        section("use", "Using the model", *_use(metrics)),
        section("asked", "Settings", _asked(metrics)),
        *([section("plan", "Time budget", plan_section(metrics))] if metrics.get("plan") else []),
    )


def render_run(folder: Path) -> str:
    """The page of a finished run, from the metrics.json and the study.db in its folder.

    Raises:
        InputError: the folder holds no finished run of this version.
    """
    if is_compression(folder):
        return render_compression_folder(folder)
    run = read_run(folder)
    with belongs_to_a_run(folder):
        return render(run.metrics, run.study)


def _tiles(final: Metrics) -> Markup:
    tiles: tuple[tuple[str, str], ...] = (
        (percent(final["test_accuracy"]), f"test accuracy ({final['test_images']} images), 95% CI "
         f"{_percents(final['test_accuracy_low'], final['test_accuracy_high'])}%"),
        (percent(final["test_balanced_accuracy"]), "balanced accuracy (mean per-class recall)"),
        (f"{final['latency_ms']:.3g} ms", f"{final['latency_source']} latency, 90% interval "
         f"{final['latency_low_ms']:.3g}–{final['latency_high_ms']:.3g} ms"),
        (_size(final["file_bytes"]), f"{final['precision']} model file ({final['weight_bytes']:,} bytes of weights)"),
        (_size(final["peak_ram_bytes"]), f"peak activation memory ({value_sources(final)['peak_ram_bytes']})"),
    )  # fmt: skip
    if final.get("expected_energy_mj") is not None:
        low, high = final["energy_low_mj"], final["energy_high_mj"]
        tiles += (
            (
                f"{final['expected_energy_mj']:.3g} mJ",
                f"estimated energy per inference, 90% interval {low:.3g}–{high:.3g} mJ",
            ),
        )
    return part("tiles", tiles)


def _asked(metrics: Metrics) -> Markup:
    config, data = metrics["config"], metrics["data"]
    images, environment = data["images"], metrics["environment"]
    wishes: dict[str, object] = {
        "data": config["data"],
        "images": ", ".join(f"{count:,} {name}" for name, count in images.items()),
        "classes": len(metrics["classes"]),
        "images as read": " × ".join(map(str, data["input_shape"])),
        "device": config["device"],
        **{name: _limit_words(key, metrics["asked"].get(key)) for key, (name, _) in LIMITS.items()},
        "max. accuracy drop": f"{points_text(config['max_accuracy_drop'])} in total",
        "time": config["time"] or "no limit",
        "candidates": "as many as time allows" if config["trials"] is None else config["trials"],
        **_start(metrics),
        "teacher": config["teacher"],
        "baseline": config["baseline"],
        "seed": config["seed"],
    }
    machine: dict[str, object] = {
        **{
            label: known[name]
            for name, label in _ENVIRONMENT.items()
            if name in (known := {**environment, **environment.get("measuring", {})})
        },
        **{name: value for name, value in environment.get("measuring", {}).items() if name not in _ENVIRONMENT},
        **environment.get("packages", {}),
    }
    environment_part = element("div", element("h3", "Environment"), listing(machine))
    return element("div", element("div", element("h3", "Run"), listing(wishes)), environment_part, class_="columns")


def _start(metrics: Metrics) -> dict[str, object]:
    """The space, or the pretrained weights."""
    config, init = metrics["config"], metrics.get("init") or {}
    if config["init"] is None:
        return {"space": config["space"]}
    return {"pretrained": init.get("text", config["init"])}


def _limit_words(key: str, limit: float | None) -> str:
    return "no limit" if limit is None else f"at most {quantity_text(key, limit, 6)}"


def _limits(metrics: Metrics) -> Markup:
    if not metrics["excess"]:
        return element("p", "No limits were set.")
    values, sources, rows = limited_values(metrics["final"]), value_sources(metrics["final"]), []
    for name, excess in metrics["excess"].items():
        share = 100 * (1 + excess)
        limit = quantity_text(name, metrics["asked"][name], 6)
        row = {
            "name": f"{LIMITS[name][0]} ({sources[name]})",
            "text": f"{compared_text(name, values[name], metrics['asked'][name])} of {limit} ({share:.0f}%)",
        }
        rows.append({**row, "width": min(share, 100.0), "broken": excess > 0})
    return part("limits", rows) + note(
        "Limits are checked conservatively: a measured latency by the upper bound of its 90% interval, an estimated "
        "latency by its 90th percentile."
    )


def _c99(metrics: Metrics) -> Markup:
    """The program of a microcontroller's run."""
    project = metrics["c99"]
    facts: dict[str, object] = {
        "folder": f"{project['folder']}/ (see its README.md)",
        "processor": project["processor"],
        "verified on": ", ".join(project["verified_on"]) or f"not verified: {'; '.join(project['problems'])}",
        "not run on": "; ".join(project["not_run"]) or "–",
        "tensor arena": f"{project['arena_bytes']:,} bytes",
        **{name: f"{project[key]:,} {unit}" for name, key, unit in _C99_FACTS if project.get(key) is not None},
    }
    return listing(facts) + note(
        "The latency is an estimate: the instruction count from emulation multiplied by the cycles per instruction, "
        "derived from published latencies of other programs (see the device file). The program has not been run on "
        "hardware."
    )


def _stages(metrics: Metrics) -> tuple[Markup, ...]:
    rows = metrics["rows"]
    steps = [row for row in rows if row["role"] in ("winner", "stage")]
    kinds = ["reverted" if row.get("rejection_reason") else "deployed" if row.get("deployed") else "" for row in rows]
    threads = "one thread" if metrics["threads"] == 1 else f"{metrics['threads']} threads"
    return (
        stages_svg(steps, metrics["asked"].get("latency_ms")),
        note(
            "Changes relative to the last accepted step are shown in parentheses (percent for size and latency, "
            "percentage points for accuracy)."
        ),
        element("h3", "All models"),
        grid(_HEAD, [_cells(row) for row in rows], "wide", kinds),
        element(
            "p",
            f"Latency is for batch size 1 on {threads}; the column “latency source” says whether it was measured or "
            "estimated. Estimates come from the cost model of the device and are ignored when a measurement exists. "
            "File size is that of the ONNX file. Peak RAM is computed from activation lifetimes. The test set was used "
            "only for the final evaluation."
            + " Validation accuracy is n/a for models that were trained on the validation images, too."
            * any(row.get("val_seen") for row in rows),
        ),
    )


def _cells(row: Metrics) -> list[str]:
    def show(name: str, form: str) -> str:
        return format(row[name], form) if row.get(name) is not None else "–"

    latency = "–"
    if row.get("latency_ms") is not None:
        latency = f"{row['latency_ms']:.3f} ({row['latency_low_ms']:.3f}–{row['latency_high_ms']:.3f})"
    remark = row.get("note", "final model" if row.get("deployed") else "")
    return [
        row["label"],
        "n/a" if row.get("val_seen") else percent(row["val_accuracy"]),
        f"{percent(row['test_accuracy'])} ({_percents(row['test_accuracy_low'], row['test_accuracy_high'])})",
        percent(row.get("test_balanced_accuracy")),
        show("params", ","),
        show("macs", ","),
        show("file_bytes", ","),
        latency,
        row.get("latency_source") or "–",
        show("estimated_ms", ".3f"),
        show("peak_ram_bytes", ","),
        "reverted" if row.get("rejection_reason") else remark,
    ]


def _memory(metrics: Metrics) -> tuple[Markup, ...]:
    text = (
        "Live activation memory while each kernel runs, at the precision of the final model. Weights are not "
        "included. Hover over a bar to see the kernel."
    )
    return memory_svg(metrics["memory"], metrics["asked"].get("peak_ram_bytes")), note(text)


def _use(metrics: Metrics) -> tuple[Markup, ...]:
    config = Config(**metrics["config"]).to_toml()
    return (
        Markup(
            "<p>The model takes float32 images of shape (N, C, H, W) and returns logits. The metadata entry "
            "<code>{}</code> describes the preprocessing. To use images of other sizes, crop them, then resize them "
            "bilinearly to each entry of <code>sizes</code> in order. Minimal example, which "
            "requires only onnxruntime and numpy:</p>"
        ).format(METADATA_KEY),
        element("pre", snippet(metrics["deployed"]), id="snippet"),
        Markup(
            "<h3>Reproduce this run</h3><p>Save the following as <code>config.toml</code> (a copy is in the run "
            "folder) and run <code>nas run config.toml --out runs/again</code>.</p>"
        ),
        element("pre", config),
    )


def snippet(name: str) -> str:
    """Python that loads an exported file and classifies an image with onnxruntime and numpy only.

    >>> compile(snippet("model.onnx"), "snippet", "exec") is not None
    True
    """
    return f'''import json

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession({json.dumps(name)})
record = json.loads(session.get_modelmeta().custom_metadata_map["{METADATA_KEY}"])
mean, std = np.array(record["mean"], np.float32), np.array(record["std"], np.float32)


def classify(pixels):
    """Classify a uint8 image (H, W, C) already resized to record["sizes"][-1]; return the class name."""
    x = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    logits = session.run(None, {{session.get_inputs()[0].name: x.transpose(2, 0, 1)[None]}})[0]
    return record["class_names"][logits[0].argmax()]
'''


def _percents(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f}"


def _size(count: int) -> str:
    return f"{count / 1000:,.1f} kB" if count < 1_000_000 else f"{count / 1e6:,.2f} MB"
