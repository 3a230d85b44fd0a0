"""Renders the report of a run as one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy.exc import SQLAlchemyError

from compress.data.preprocessing import METADATA_KEY
from hw_profiles.errors import InputError
from nas.config import Config
from nas.report.candidates_section import candidates_section
from nas.report.charts import architecture_svg, memory_svg, stages_svg
from nas.report.compression_page import is_compression, render_compression_folder
from nas.report.html import grid, listing, page, percent, section
from nas.report.plan_section import plan_section
from nas.report.predictions_section import data_section, on_test_section
from nas.report.svg import words
from nas.results.collect import METRICS_SCHEMA, limited_values, value_sources
from nas.results.metrics_file import read_metrics
from nas.storages.sqlite_file import sqlite_url

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
    asked, final = metrics["asked"], metrics["final"]
    broken = "" if metrics["budget_met"] else " broken"
    return page(
        f"fitnas: {asked['data']}",
        f"<h1>{words(metrics['deployed'])} for {words(asked['device'])}</h1>",
        f'<p class="quiet">image classifier with {len(metrics["classes"])} classes, data: {words(asked["data"])}</p>',
        f'<p class="verdict{broken}">{words(metrics["verdict"])}</p>',
        _warnings(metrics["warnings"]),
        _tiles(final),
        section("asked", "Settings", _asked(metrics)),
        section("plan", "Time", plan_section(metrics)) if metrics.get("plan") else "",
        section("budget", "Budget", _budget(metrics)),
        section("candidates", "Candidates", *candidates_section(metrics, study)),
        section("c99", "C99 program", _c99(metrics)) if metrics.get("c99") else "",
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
    for name in ("metrics.json", "study.db"):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: must be the folder of a finished run, but it has no {name}")
    metrics, study = _read_metrics(folder / "metrics.json"), _read_study(folder / "study.db")
    try:
        return render(metrics, study)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{folder}: metrics.json and study.db do not belong to a finished run ({error!r})") from None


def _read_metrics(path: Path) -> Metrics:
    metrics = read_metrics(path)
    schema = metrics.get("schema")
    if schema != METRICS_SCHEMA:
        raise InputError(
            f"{path}: schema must be {METRICS_SCHEMA}, got {schema!r}: it was written by another version of fitnas"
        )
    return metrics


def _read_study(path: Path) -> optuna.Study:
    try:
        return optuna.load_study(study_name="search", storage=sqlite_url(path))
    except (KeyError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise InputError(f"{path}: not the study of a run ({type(error).__name__})") from None


def _warnings(lines: list[str]) -> str:
    shown = "".join(f"<li>{words(line)}</li>" for line in lines)
    return f'<ul class="warnings" role="note">{shown}</ul>' if lines else ""


def _tiles(final: Metrics) -> str:
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
    shown = "".join(f'<div class="tile"><b>{words(value)}</b><span>{words(what)}</span></div>' for value, what in tiles)
    return f'<div class="tiles">{shown}</div>'


def _asked(metrics: Metrics) -> str:
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
    return f'<div class="columns">{listing(wishes)}{listing(machine)}</div>'


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


def _budget(metrics: Metrics) -> str:
    if not metrics["excess"]:
        return "<p>No limit was given.</p>"
    values, sources, rows = limited_values(metrics["final"]), value_sources(metrics["final"]), []
    for name, excess in metrics["excess"].items():
        share = 100 * (1 + excess)
        said = f"{_quantity(name, values[name])} of {_quantity(name, metrics['asked'][name])}, {share:.1f} %"
        rows.append(
            f'<div class="limit-row"><span>{words(_LIMITS[name][0])}, {words(sources[name])}</span>'
            f'<div class="bar{" broken" if excess > 0 else ""}"><div style="width:{min(share, 100):.1f}%"></div></div>'
            f"<span>{words(said)}</span></div>"
        )
    note = (
        "A measured latency is compared with the limit by the upper end of its 90 % interval, an estimated one by the "
        "value that it stays below with a probability of 90 %."
    )
    return "".join(rows) + f'<p class="quiet">{note}</p>'


def _c99(metrics: Metrics) -> str:
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
    note = (
        "The latency is an estimate: instructions counted under emulation, times the cycles of an instruction that "
        "published latencies of other programs support (see the device file). No board has run the program."
    )
    return f'{listing(facts)}<p class="quiet">{note}</p>'


def _stages(metrics: Metrics) -> tuple[str, ...]:
    rows = metrics["rows"]
    steps = [row for row in rows if row["role"] in ("winner", "stage")]
    kinds = ["reverted" if row.get("rejection_reason") else "deployed" if row.get("deployed") else "" for row in rows]
    source = metrics["final"]["latency_source"]
    threads = "one thread" if metrics["threads"] == 1 else f"{metrics['threads']} threads"
    return (
        stages_svg(steps, metrics["asked"].get("latency_ms")),
        "<p class='quiet'>In parentheses: the change from the last accepted step, in percent for bytes and latency, in "
        "percentage points for accuracy.</p><h3>All networks</h3>",
        grid(_HEAD, [_cells(row) for row in rows], "wide", kinds),
        f"<p>Latency: {words(source)}, batch size 1, {words(threads)}; the column “source” gives the source for each "
        "network. The estimate comes from the device file and is not used where a latency was measured. File bytes are "
        "those of the ONNX file. Peak RAM is planned from the lifetimes of the activations. Test images were used only "
        "for the final evaluation.</p>",
    )


def _cells(row: Metrics) -> list[str]:
    def show(name: str, form: str) -> str:
        return format(row[name], form) if row.get(name) is not None else "–"

    latency = "–"
    if row.get("latency_ms") is not None:
        latency = f"{row['latency_ms']:.3f} ({row['latency_low_ms']:.3f}–{row['latency_high_ms']:.3f})"
    note = row.get("note", "deployed" if row.get("deployed") else "")
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
        "reverted" if row.get("rejection_reason") else note,
    ]


def _memory(metrics: Metrics) -> tuple[str, ...]:
    note = (
        "Bytes of the activations that must exist while each kernel runs, in the deployed precision, planned from "
        "their lifetimes. Weights are not included. Hover over a bar to see the name of the kernel."
    )
    return memory_svg(metrics["memory"], metrics["asked"].get("peak_ram_bytes")), f'<p class="quiet">{note}</p>'


def _use(metrics: Metrics) -> tuple[str, ...]:
    config = Config(**metrics["config"]).to_toml()
    return (
        "<p>The file takes float32 images of shape (N, C, H, W) and returns logits. Its metadata entry "
        f"<code>{words(METADATA_KEY)}</code> says how an image becomes the input; an image of another size is cropped "
        "and resized bilinearly to each of <code>sizes</code> in turn. The code needs only onnxruntime and numpy:</p>",
        f'<pre id="snippet">{words(snippet(metrics["deployed"]))}</pre>',
        "<h3>Repeat the run</h3><p>Save this as <code>config.toml</code> (the run folder has it as well); "
        "<code>nas run config.toml --out runs/again</code> repeats the run.</p>",
        f"<pre>{words(config)}</pre>",
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
