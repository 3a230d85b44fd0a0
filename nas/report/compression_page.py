"""Renders the report of a compression as one self-contained HTML page, from its metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hw_profiles.errors import InputError
from nas.report.html import grid, listing, note, page, part, percent, section
from nas.report.svg import element, joined
from nas.results.collect import points_text
from nas.results.metrics_file import read_metrics
from nas.results.waterfall import WATERFALL_HEAD, lost, tried_lines, waterfall_cells

Metrics = Mapping[str, Any]

COMPRESSION = "compression"
COMPRESSION_SCHEMA = 1


def is_compression(folder: Path) -> bool:
    """Whether a folder holds a finished compression and not a run."""
    path = folder / "metrics.json"
    return path.is_file() and not (folder / "study.db").is_file() and read_metrics(path).get("kind") == COMPRESSION


def render_compression_folder(folder: Path) -> str:
    """The page of a finished compression.

    Raises:
        InputError: metrics.json is of another version, or damaged.
    """
    metrics = read_metrics(folder / "metrics.json")
    if metrics.get("schema") != COMPRESSION_SCHEMA:
        raise InputError(
            f"{folder} was written by a different fitnas version (schema {metrics.get('schema')!r}, expected "
            f"{COMPRESSION_SCHEMA})"
        )
    try:
        return render_compression(metrics)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{folder}: not a finished compression run (invalid metrics.json: {error!r})") from None


def render_compression(metrics: Metrics) -> str:
    """The page of a compression."""
    met = metrics["budget_met"] and metrics["target_met"]
    config = metrics["config"]
    head = joined(
        (
            element("h1", f"{config['model']} compressed for {config['device']}"),
            note(f"Compressed model: {metrics['deployed']}, dataset: {metrics['asked']['data']}"),
            element("p", metrics["verdict"], class_="verdict" if met else "verdict broken"),
            part("warnings", metrics["warnings"]),
            _tiles(metrics),
        )
    )
    return page(
        f"fitnas: {config['model']}",
        head,
        section(
            "settings",
            "Settings",
            listing({name.replace("_", " "): each for name, each in config.items() if each is not None}),
        ),
        section("stages", "Effect of each step", *_waterfall(metrics)),
        section("plans", "Plans evaluated", _plans(metrics)),
    )


def _tiles(metrics: Metrics) -> Markup:
    reference, promise, test = metrics["reference"], metrics["promise"], metrics["test_change"]
    tiles = (
        (f"{metrics['coded_bytes']:,} bytes", f"compressed file (.fnz); original: {reference['coded_bytes']:,}"),
        (f"{metrics['file_bytes']:,} bytes", f"ONNX file; original: {reference['file_bytes']:,}"),
        (f"{lost(promise)} points", f"accuracy drop on {promise['images']} validation images (limit: "
         f"{points_text(promise['allowed'])}, compared with {promise['judged_by']})"),
        (percent(metrics["test_accuracy"]), f"test accuracy ({metrics['test_images']} images); original: "
         f"{percent(metrics['reference_test_accuracy'])}, drop {lost(test)} points"),
        (f"{metrics['latency_ms']:.3g} ms", f"{metrics['final']['latency_source']} latency; original: "
         f"{reference['latency_ms']:.3g} ms"),
    )  # fmt: skip
    return part("tiles", tiles)


def _waterfall(metrics: Metrics) -> tuple[Markup, ...]:
    rows = metrics["waterfall"]
    kinds = ["" if row["accepted"] else "reverted" for row in rows]
    lines = [element("li", line) for line in tried_lines(rows)]
    return (
        grid(list(WATERFALL_HEAD), [list(waterfall_cells(row)) for row in rows], "wide", kinds),
        *([element("h3", "Alternatives tried"), element("ul", *lines)] if lines else []),
        note(
            "The accuracy drop is relative to the original model on the same validation images, with its confidence "
            "interval. The test set was used only for the final evaluation. Rerun with --plan plan.toml to repeat the "
            "accepted steps."
        ),
    )


def _plans(metrics: Metrics) -> Markup:
    head = ["plan", "steps", "meets the accuracy limit", "compressed size (bytes)", "val. accuracy", "latency, ms"]
    rows = [
        [
            plan["label"],
            ", ".join(plan["stages"]),
            "yes" if plan["within_tolerance"] else "no",
            f"{plan['coded_bytes']:,}",
            percent(plan["val_accuracy"]),
            f"{plan['latency_ms']:.3f}",
        ]
        for plan in metrics["plans"]
    ]
    return grid(head, rows, "names")
