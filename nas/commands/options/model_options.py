"""The options of the verbs that take a model or choose one."""

from __future__ import annotations

from typing import Any

from nas.commands.compress import add_compress_options
from nas.commands.options.setting_options import JSON, RUN_OPTIONS, add_option, setting_name
from nas.config import settings


def add_model_verbs(verbs: Any) -> None:
    """Add ``compress``, ``select``, ``profile``, ``compare`` and ``export``."""
    compressed = verbs.add_parser("compress", help="compress a trained model while limiting the accuracy drop")
    add_compress_options(compressed, JSON)
    _add_select(verbs)
    _add_profile(verbs)
    _add_compare(verbs)
    _add_export(verbs)


def _add_profile(verbs: Any) -> None:
    profiled = verbs.add_parser("profile", help="show per-layer MACs, memory and latency of a model on a device")
    profiled.add_argument("model", help="preset (see `nas list`), timm:NAME, .onnx file, or the arch.json of a run")
    profiled.add_argument("--device", default="host", help=RUN_OPTIONS["--device"])
    profiled.add_argument(
        "--precision",
        help="fp32 (float32) or int8; not allowed for .onnx files, whose precision is fixed (default: fp32)",
    )
    profiled.add_argument(
        "--input-shape",
        metavar="CxHxW",
        help="input shape without the batch dimension, e.g. 3x224x224, or NAME=SHAPE pairs for models with several "
        "inputs, e.g. image=3x64x64,sizes=2 (default: that of the model)",
    )
    profiled.add_argument(
        "--measure", action="store_true", help="also measure its latency on this machine (default: off)"
    )
    profiled.add_argument(
        "--check",
        action="store_true",
        help="also show the MACs and parameters as counted by fvcore, for comparison (default: off)",
    )
    profiled.add_argument("--html", metavar="FILE", help="also write an HTML page with charts (default: none)")
    profiled.add_argument("--json", action="store_true", help=JSON)


def _add_select(verbs: Any) -> None:
    selected = verbs.add_parser("select", help="rank the timm models that meet the limits, by published accuracy")
    for option in ("--latency", "--ram", "--flash", "--energy"):
        default = "that of a microcontroller, else no limit" if option in ("--ram", "--flash") else "no limit"
        add_option(selected, option, f"{settings()[setting_name(option)].text} (default: {default})")
    selected.add_argument("--device", default="host", help=RUN_OPTIONS["--device"])
    selected.add_argument("--precision", default="fp32", help="fp32 (float32) or int8 (default: fp32)")
    selected.add_argument("--top", type=int, default=10, metavar="N", help="number of models to list (default: 10)")
    selected.add_argument(
        "--measure",
        type=int,
        default=0,
        metavar="N",
        help="also measure the latency of the top N on this machine (default: 0)",
    )
    selected.add_argument("--html", metavar="FILE", help="also write an HTML page with the Pareto plot (default: none)")
    selected.add_argument("--json", action="store_true", help=JSON)


def _add_export(verbs: Any) -> None:
    exported = verbs.add_parser("export", help="export an int8 model as C99 source code")
    exported.add_argument("source", help="run folder with an int8 model, or an int8 .onnx file")
    exported.add_argument("--format", choices=["c99"], default="c99", help="output format (default: c99)")
    exported.add_argument("--out", required=True, metavar="FOLDER", help="output folder (required)")
    exported.add_argument("--force", action="store_true", help="write into a non-empty folder (default: off)")
    exported.add_argument(
        "--data",
        help="dataset the model was trained on; some of its test images are stored as test vectors (default: none)",
    )
    exported.add_argument(
        "--verify",
        action="store_true",
        help="compile and run the program, and compare its outputs with those of ONNX Runtime (on random inputs unless "
        "--data is given) (default: off)",
    )


def _add_compare(verbs: Any) -> None:
    compared = verbs.add_parser("compare", help="compare the outputs of two models on the same images")
    for letter in "ab":
        compared.add_argument(letter, metavar=f"MODEL_{letter.upper()}", help=".onnx or .fnz file, or a run folder")
    compared.add_argument("--data", help="dataset the models were trained on (default: that of the run)")
    compared.add_argument(
        "--seed", type=int, metavar="N", help="random seed for the split (default: that of the run, or 0)"
    )
    compared.add_argument(
        "--threshold",
        type=float,
        default=0.1,
        help="relative error above which a layer is reported as diverging (default: 0.1)",
    )
    compared.add_argument(
        "--measure", action="store_true", help="also measure the latency of both on this machine (default: off)"
    )
    compared.add_argument(
        "--device",
        default="host",
        help="device description of this machine (name or .toml file), used with --measure (default: host)",
    )
    compared.add_argument("--json", action="store_true", help=JSON)
