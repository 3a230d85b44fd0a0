"""The options of ``nas devices``."""

from __future__ import annotations

import argparse
from typing import Any

from nas.commands.options.help_texts import describe
from nas.commands.options.setting_options import JSON
from nas.commands.output.log_output import add_verbosity

_BOTH = "fp32 (float32), int8, or fp32,int8 for both (default: fp32,int8)"


def add_devices(verbs: Any) -> None:
    """Add ``devices`` and what stands below it."""
    devices = verbs.add_parser("devices", help="list, show, check, benchmark or calibrate devices")
    devices.add_argument("--json", action="store_true", help=JSON)
    devices.set_defaults(what=None)
    what = devices.add_subparsers(dest="what", metavar="COMMAND")
    shown = what.add_parser("show", help="show the specifications of a device and the cost coefficients of its kernels")
    shown.add_argument("device", help="name or .toml file")
    checked = what.add_parser("check", help="check a device file against ten networks run on this machine")
    checked.add_argument("device", nargs="?", default="host", help="name or .toml file (default: host)")
    measured = what.add_parser(
        "measure", help="benchmark this machine, or a remote one over SSH, and write a device file"
    )
    measured.add_argument("--out", metavar="FILE", help=".toml file to write (required); rerun the command to resume")
    measured.add_argument("--time", metavar="TIME", help="time limit for the measurement (default: 10min)")
    measured.add_argument(
        "--base", metavar="DEVICE",
        help="device (name or .toml file) whose costs are the starting point, or none (default: host)",
    )  # fmt: skip
    measured.add_argument(
        "--ssh", metavar="USER@HOST", help="benchmark a remote machine over SSH instead (default: this machine)"
    )
    measured.add_argument("--ssh-config", metavar="FILE", help="SSH configuration file (default: ~/.ssh/config)")
    measured.add_argument(
        "--remote-python",
        default="python3",
        metavar="PROGRAM",
        help="Python interpreter on the remote machine, with onnxruntime installed (default: python3)",
    )
    measured.add_argument(
        "--threads", type=int, default=1, metavar="N", help="number of inference threads (default: 1)"
    )
    measured.add_argument("--precision", default="fp32,int8", help=_BOTH)
    kit = what.add_parser("kit", help="write a benchmark kit that runs on a device without fitnas")
    kit.add_argument("--out", metavar="FOLDER", help="new or empty folder (required)")
    kit.add_argument(
        "--board",
        action="store_true",
        help="write an int8 C99 project for a microcontroller board instead (default: off)",
    )
    kit.add_argument("--precision", default="fp32,int8", help=_BOTH)
    calibrated = what.add_parser("calibrate", help="create a device file from a few latencies measured on the device")
    calibrated.add_argument("--base", metavar="DEVICE", help="name or .toml file of the most similar device (required)")
    calibrated.add_argument(
        "--from", dest="table", metavar="FILE",
        help="result.json of the kit, or a .csv file with the columns model,latency_ms[,precision] (required)",
    )  # fmt: skip
    calibrated.add_argument(
        "--runtime",
        help="inference runtime used for the measurements; must be one that the base device supports (default: that "
        "of result.json, or of the base device)",
    )
    calibrated.add_argument("--out", metavar="FILE", help=".toml file to write (required)")
    calibrated.add_argument("--name", help="name of the new device (default: file name without .toml)")
    calibrated.add_argument(
        "--input-shape",
        metavar="CxHxW",
        help="input shape without the batch dimension, e.g. 3x224x224 (default: that of each model)",
    )
    parts = {"show": shown, "check": checked, "measure": measured, "kit": kit, "calibrate": calibrated}
    for name, part in parts.items():
        part.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=JSON)
        add_verbosity(part, default=argparse.SUPPRESS)
        describe(part, f"devices {name}")
