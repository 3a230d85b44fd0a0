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
from nas.results.collect import limited_values, value_sources

Metrics = Mapping[str, Any]

_LIMITS = {
    "latency_ms": ("latency", "ms"),
    "peak_ram_bytes": ("peak RAM", "bytes"),
    "flash_bytes": ("flash", "bytes"),
    "energy_mj": ("energy", "mJ"),
}
_C99_FACTS = (
    ("stack", "stack_bytes", "bytes"), ("code", "code_bytes", "bytes"), ("constants", "constant_bytes", "bytes"),
    ("instructions for one image", "instructions", ""),
)  # fmt: skip
_HEAD = ["", "val acc", "test acc (95 %)", "balanced", "params", "MACs", "file bytes", "latency ms (90 %)", "source",
         "estimate ms", "peak RAM", ""]  # fmt: skip


def render(metrics: Metrics, study: optuna.Study) -> str:
    """The page of a run from its metrics.json and its study."""
    asked = metrics["asked"]
    head = joined(
        (
            element("h1", f"{metrics['deployed']} for {asked['device']}"),
            note(f"image classifier with {len(metrics['classes'])} classes, data: {asked['data']}"),
            element("p", metrics["verdict"], class_="verdict" if metrics["budget_met"] else "verdict broken"),
            part("warnings", metrics["warnings"]),
            _tiles(metrics["final"]),
        )
    )
    return page(
        f"fitnas: {asked['data']}",
        head,
        section("asked", "Settings", _asked(metrics)),
        *([section("plan", "Time", plan_section(metrics))] if metrics.get("plan") else []),
        section("budget", "Budget", _budget(metrics)),
        section("candidates", "Candidates", *candidates_section(metrics, study)),
        *([section("c99", "C99 program", _c99(metrics))] if metrics.get("c99") else []),
        section("stages", "From the winner to the deployed file", *_stages(metrics)),
        section("architecture", "Architecture", architecture_svg(metrics["architecture"])),
        section("memory", "Memory over time", *_memory(metrics)),
        on_test_section(metrics),
        data_section(metrics),
        section("use", "How to use the file", *_use(metrics)),
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
        (percent(final["test_accuracy"]), f"accuracy on {final['test_images']} test images, "
         f"95 %: {_percents(final['test_accuracy_low'], final['test_accuracy_high'])}"),
        (percent(final["test_balanced_accuracy"]), "balanced accuracy, the mean recall of the classes"),
        (f"{final['latency_ms']:.4g} ms", f"latency, {final['latency_source']}, "
         f"90 %: {final['latency_low_ms']:.4g} to {final['latency_high_ms']:.4g}"),
        (_size(final["file_bytes"]), f"file in {final['precision']}, {final['weight_bytes']:,} bytes of weights"),
        (_size(final["peak_ram_bytes"]), f"peak RAM, {value_sources(final)['peak_ram_bytes']}"),
    )  # fmt: skip
    if final.get("expected_energy_mj") is not None:
        low, high = final["energy_low_mj"], final["energy_high_mj"]
        tiles += ((f"{final['expected_energy_mj']:.3g} mJ", f"energy, estimated, 90 %: {low:.3g} to {high:.3g}"),)
    return part("tiles", tiles)


def _asked(metrics: Metrics) -> Markup:
    config, data = metrics["config"], metrics["data"]
    images, environment = data["images"], metrics["environment"]
    wishes: dict[str, object] = {
        "data": config["data"],
        "images": ", ".join(f"{count:,} {name}" for name, count in images.items()),
        "classes": len(metrics["classes"]),
        "input": " × ".join(map(str, data["input_shape"])),
        "device": config["device"],
        **{name: _limit_words(key, metrics["asked"].get(key)) for key, (name, _) in _LIMITS.items()},
        "accuracy drop": f"at most {config['max_accuracy_drop']:g} points over all compression steps",
        "time": config["time"] or "no limit",
        "trials": "as many as the time allows" if config["trials"] is None else config["trials"],
        **_start(metrics),
        "teacher": config["teacher"],
        "baseline": config["baseline"],
        "seed": config["seed"],
    }
    machine: dict[str, object] = {
        **{name: environment[name] for name in ("python", "cores") if name in environment},
        **environment.get("measuring", {}),
        **environment.get("packages", {}),
    }
    return element("div", listing(wishes), listing(machine), class_="columns")


def _start(metrics: Metrics) -> dict[str, object]:
    """The space, or the pretrained weights."""
    config, init = metrics["config"], metrics.get("init") or {}
    if config["init"] is None:
        return {"space": config["space"]}
    return {"pretrained": init.get("text", config["init"])}


def _limit_words(key: str, limit: float | None) -> str:
    return "no limit" if limit is None else f"at most {_quantity(key, limit)}"


def _quantity(key: str, value: float | None) -> str:
    unit = _LIMITS[key][1]
    return "–" if value is None else f"{value:,.0f} bytes" if unit == "bytes" else f"{value:,.4g} {unit}"


def _budget(metrics: Metrics) -> Markup:
    if not metrics["excess"]:
        return element("p", "No limit was given.")
    values, sources, rows = limited_values(metrics["final"]), value_sources(metrics["final"]), []
    for name, excess in metrics["excess"].items():
        share = 100 * (1 + excess)
        text = f"{_quantity(name, values[name])} of {_quantity(name, metrics['asked'][name])}, {share:.1f} %"
        row = {"name": _LIMITS[name][0], "source": sources[name], "text": text}
        rows.append({**row, "width": min(share, 100.0), "broken": excess > 0})
    return part("limits", rows) + note(
        "A measured latency is compared with the limit by the upper end of its 90 % interval, an estimated one by the "
        "value that it stays below with a probability of 90 %."
    )


def _c99(metrics: Metrics) -> Markup:
    """The program of a microcontroller's run."""
    project = metrics["c99"]
    facts: dict[str, object] = {
        "folder": f"{project['folder']}/, whose README.md says how to use it",
        "processor": project["processor"],
        "verified": ", ".join(project["verified_on"]) or f"no: {'; '.join(project['problems'])}",
        "not run on": "; ".join(project["not_run"]) or "–",
        "arena": f"{project['arena_bytes']:,} bytes",
        **{name: f"{project[key]:,} {unit}" for name, key, unit in _C99_FACTS if project.get(key) is not None},
    }
    return listing(facts) + note(
        "The latency is an estimate: instructions counted under emulation, times the cycles of an instruction that "
        "published latencies of other programs support (see the device file). No board has run the program."
    )


def _stages(metrics: Metrics) -> tuple[Markup, ...]:
    rows = metrics["rows"]
    steps = [row for row in rows if row["role"] in ("winner", "stage")]
    kinds = ["reverted" if row.get("rejection_reason") else "deployed" if row.get("deployed") else "" for row in rows]
    source = metrics["final"]["latency_source"]
    threads = "one thread" if metrics["threads"] == 1 else f"{metrics['threads']} threads"
    return (
        stages_svg(steps, metrics["asked"].get("latency_ms")),
        note(
            "In parentheses: the change from the last accepted step, in percent for bytes and latency, in percentage "
            "points for accuracy."
        ),
        element("h3", "All networks"),
        grid(_HEAD, [_cells(row) for row in rows], "wide", kinds),
        element(
            "p",
            f"Latency: {source}, batch size 1, {threads}; the column “source” gives the source for each network. The "
            "estimate comes from the device file and is not used where a latency was measured. File bytes are those of "
            "the ONNX file. Peak RAM is planned from the lifetimes of the activations. Test images were used only for "
            "the final evaluation.",
        ),
    )


def _cells(row: Metrics) -> list[str]:
    def show(name: str, form: str) -> str:
        return format(row[name], form) if row.get(name) is not None else "–"

    latency = "–"
    if row.get("latency_ms") is not None:
        latency = f"{row['latency_ms']:.3f} ({row['latency_low_ms']:.3f}–{row['latency_high_ms']:.3f})"
    remark = row.get("note", "deployed" if row.get("deployed") else "")
    return [
        row["label"],
        "n/a (trained on)" if row.get("val_seen") else percent(row["val_accuracy"]),
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
        "Bytes of the activations that must exist while each kernel runs, in the deployed precision, planned from "
        "their lifetimes. Weights are not included. Hover over a bar to see the name of the kernel."
    )
    return memory_svg(metrics["memory"], metrics["asked"].get("peak_ram_bytes")), note(text)


def _use(metrics: Metrics) -> tuple[Markup, ...]:
    config = Config(**metrics["config"]).to_toml()
    return (
        Markup(
            "<p>The file takes float32 images of shape (N, C, H, W) and returns logits. Its metadata entry "
            "<code>{}</code> says how an image becomes the input; an image of another size is cropped and resized "
            "bilinearly to each of <code>sizes</code> in turn. The code needs only onnxruntime and numpy:</p>"
        ).format(METADATA_KEY),
        element("pre", snippet(metrics["deployed"]), id="snippet"),
        Markup(
            "<h3>Repeat the run</h3><p>Save this as <code>config.toml</code> (the run folder has it as well); "
            "<code>nas run config.toml --out runs/again</code> repeats the run.</p>"
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
    """uint8 (height, width, channels) of the last of record["sizes"] -> name of the class"""
    x = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    logits = session.run(None, {{session.get_inputs()[0].name: x.transpose(2, 0, 1)[None]}})[0]
    return record["class_names"][logits[0].argmax()]
'''


def _percents(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f}"


def _size(count: int) -> str:
    return f"{count / 1000:,.1f} kB" if count < 1_000_000 else f"{count / 1e6:,.2f} MB"
