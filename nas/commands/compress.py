"""``nas compress``: compress a trained model while limiting the accuracy drop."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from compress.atomic_files import json_text
from nas.commands.output.text_table import wrapped
from nas.config import settings


def _limit(name: str) -> str:
    return f"{settings()[name].text} (default: no limit)"


# Options with their types, the names of their values, and their help.
COMPRESS_OPTIONS: dict[str, tuple[type, str | None, str]] = {
    "--data": (
        str, None, f"{settings()['data'].text} (default: the dataset of MODEL's run, or digits)"
    ),
    "--device": (str, None, f"{settings()['device'].text} (default: host)"),
    "--max-accuracy-drop": (
        float, "POINTS", "maximum total accuracy drop relative to MODEL, in percentage points (default: 1)"
    ),
    "--confidence": (
        float, "LEVEL",
        "one-sided confidence level of the accuracy-drop test on the validation images (default: 0.9)"
    ),
    "--target-size": (str, "SIZE", "maximum size of the compressed (.fnz) file, e.g. 100kB (default: no limit)"),
    "--latency": (str, "TIME", _limit("latency")),
    "--ram": (str, "SIZE", _limit("ram")),
    "--flash": (str, "SIZE", _limit("flash")),
    "--energy": (str, "ENERGY", _limit("energy")),
    "--time": (str, "TIME", "time limit for the whole compression, e.g. 30min (default: no limit)"),
    "--plan": (
        str, "FILE", "TOML file listing the compression steps, e.g. the plan.toml of an earlier run (default: chosen "
        "automatically)"
    ),
    "--trials": (
        int, "N", "number of compression plans to try, each fine-tuned briefly (default: as many as "
        "--time allows; one plan, without a search, if --time is not given either)"
    ),
    "--teacher": (str, None, "ONNX teacher model to distil from before pruning, or none (default: none)"),
    "--train-epochs": (
        float, "N", "train MODEL for N epochs first; required if it has no trained weights (default: no training)"
    ),
    "--stage-epochs": (float, "N", "fine-tuning epochs per step (default: 5)"),
    "--learning-rate": (
        float, "RATE", "learning rate for --train-epochs; compression steps use fractions of it (default: 0.1)"
    ),
    "--latency-from": (
        str, "SOURCE",
        "source of latencies: measured, estimated, or auto (measured if the device is this machine) (default: auto)"
    ),
    "--size": (int, "N", f"{settings()['size'].text} (default: original size)"),
    "--seed": (
        int, "N", "random seed for splits and training (default: the seed of MODEL's run, or 0)"
    ),
    "--out": (str, "FOLDER", "output folder; rerun the same command to resume (default: runs/compress)"),
}  # fmt: skip


def add_compress_options(parser: ArgumentParser, json_help: str) -> None:
    """The arguments of the verb."""
    parser.add_argument(
        "model", help="run folder, arch.json, .onnx file, preset (see `nas list`), timm:NAME or module:attribute"
    )
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
    if as_json:
        return json_text({name: value for name, value in metrics.items() if name != "folder"})
    from nas.commands.output.run_table import steps_table
    from nas.results.waterfall import tried_lines

    rows = metrics["waterfall"]
    tried = [line for each in tried_lines(rows) for line in wrapped(each, "- ", "  ")]
    shown = [*steps_table(rows), ""]
    if tried:
        shown += ["alternatives tried for steps that lost too much accuracy:", *tried, ""]
    return "\n".join([*shown, metrics["verdict"], f"report: {metrics['folder']}/report.html"])
