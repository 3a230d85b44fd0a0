"""``nas compress``: make a trained network smaller within a promised accuracy."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from compress.atomic_files import json_text
from nas.commands.output.text_table import aligned

# Options with their kinds, the words for their values, and their help.
COMPRESS_OPTIONS: dict[str, tuple[type, str | None, str]] = {
    "--data": (
        str, None, "digits, a folder of images, a zip or tar of one, an .npz file, or torchvision:NAME "
        "(default: those of the run that MODEL comes from, otherwise digits)"
    ),
    "--device": (str, None, "name (see `nas devices`) or .toml file of the target device (default: host)"),
    "--max-accuracy-drop": (
        float, "POINTS", "percentage points of accuracy that all stages together may lose against MODEL (default: 1)"
    ),
    "--confidence": (
        float, "SHARE", "one-sided confidence with which the promise must hold on validation images (default: 0.9)"
    ),
    "--target-size": (str, "SIZE", "bytes that the coded file may have, such as 100kB (default: no limit)"),
    "--latency": (str, "TIME", "limit on the time of one image, such as 5ms or 250us (default: no limit)"),
    "--ram": (str, "SIZE", "limit on the memory of the activations, such as 256kB (default: no limit)"),
    "--flash": (str, "SIZE", "limit on the bytes of the weights, such as 1MB (default: no limit)"),
    "--energy": (
        str, "ENERGY", "limit on the energy of one image, such as 2mJ, for devices with known power (default: no limit)"
    ),
    "--time": (str, "TIME", "time for the whole compression, such as 30min (default: no limit)"),
    "--plan": (str, "FILE", "TOML file of stages, such as plan.toml of an earlier compression (default: automatic)"),
    "--trials": (
        int, "N", "plans that a search tries with a short recovery (default: as many as --time allows, or none)"
    ),
    "--teacher": (str, None, "ONNX file to distil from before anything is removed, or none (default: none)"),
    "--train-epochs": (
        float, "N", "train MODEL first, for so many epochs; needed where it has no weights (default: not trained)"
    ),
    "--stage-epochs": (float, "N", "epochs for which each stage trains (default: 5)"),
    "--learning-rate": (float, "RATE", "learning rate of --train-epochs; stages train at parts of it (default: 0.1)"),
    "--latency-from": (
        str, None, "measured, estimated, or auto: measured if the device is this machine (default: auto)"
    ),
    "--size": (int, "N", "side in pixels to which images are resized when they are read (default: their own)"),
    "--seed": (int, "N", "seed of splits and training (default: that of the run that MODEL comes from, otherwise 0)"),
    "--out": (str, "FOLDER", "folder of the results; rerun the same command to resume (default: runs/compress)"),
}  # fmt: skip


def add_compress_options(parser: ArgumentParser, json_help: str) -> None:
    """The arguments of the verb."""
    parser.add_argument("model", help="run folder, arch.json, .onnx file, preset, timm:NAME or module:name (required)")
    for option, (kind, metavar, text) in COMPRESS_OPTIONS.items():
        parser.add_argument(option, type=kind, metavar=metavar, help=text)
    parser.add_argument("--json", action="store_true", help=json_help)


def run_compress(parsed: Namespace) -> Mapping[str, Any]:
    """Compress as the command line asks; what metrics.json holds."""
    from nas.compression.compress_model import compress

    names = [option[2:].replace("-", "_") for option in COMPRESS_OPTIONS]
    given = {name: value for name in names if (value := getattr(parsed, name)) is not None}
    result = compress(parsed.model, **given)
    return {**result.metrics, "folder": str(result.folder)}


def compression_text(metrics: Mapping[str, Any], *, as_json: bool) -> str:
    """The waterfall, what was tried, and the verdict."""
    from nas.results.waterfall import WATERFALL_HEAD, tried_lines, waterfall_cells

    if as_json:
        return json_text({name: value for name, value in metrics.items() if name != "folder"})
    rows = metrics["waterfall"]
    cells = [waterfall_cells(row) for row in rows]
    lines = aligned(WATERFALL_HEAD[:-1], [each[:-1] for each in cells], left=1)
    lines = [f"{line}  {note}".rstrip() for line, note in zip(lines, ("", *(each[-1] for each in cells)), strict=True)]
    tried = tried_lines(rows)
    shown = [*lines, "", *(["tried where a stage lost too much:", *tried, ""] if tried else [])]
    return "\n".join([*shown, metrics["verdict"], f"report: {metrics['folder']}/report.html"])
