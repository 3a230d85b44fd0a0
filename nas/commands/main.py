"""The command ``nas``: parse, call one public function, print."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from compress.atomic_files import json_text
from nas.commands.interrupts import no_interrupt_lost
from nas.config import load_config, parse_assignment
from nas.errors import CrashError, InputError, NothingFitsError, disk_is_full, user_input

_RUN_OPTIONS = {
    "--data": "digits, a folder of images, an .npz file, or torchvision:NAME",
    "--device": "name (see `nas devices`) or .toml file",
    "--latency": "limit such as 5ms or 250us",
    "--ram": "limit on the activations' memory, such as 256kB",
    "--flash": "limit on the weights, such as 1MB",
    "--energy": "limit such as 2mJ, for devices whose power is known (see `nas devices`)",
    "--max-accuracy-drop": "percentage points that all stages together may cost",
    "--time": "time for everything, such as 30min",
    "--trials": "candidates to train; without --time nothing depends on the clock",
    "--space": "name (see `nas list`) or module:name",
    "--init": "start from pretrained weights instead of a space: auto, timm:NAME, or a file of timm's weights",
    "--sampler": "how the search proposes: surrogate (the default), tpe or random",
    "--warm-start": "folder of an earlier run of the same space: its best networks are tried first",
    "--workers": "candidates to train at a time, each in a process of its own; by default as many as are faster here",
    "--storage": "where a study that machines share is kept: FILE.db, postgresql://…, journal:FILE (docs/machines.md)",
    "--study": "its name",
    "--artifacts": "folder that the machines share, for the weights of --init",
    "--executor": "what trains candidates: processes (of this machine) or ray",
    "--address": "cluster of Ray, such as auto or HOST:PORT; by default a Ray of its own",
    "--cpus": "of Ray, for each candidate",
    "--gpus": "of Ray, for each candidate",
    "--teacher": "timm:NAME, an ONNX file, none, or auto",
    "--baseline": "preset trained beside the winner, or none",
    "--out": "run folder; rerun the same command to resume",
    "--seed": "seed of splits, search and training",
}
_NUMBERS: dict[str, Callable[[str], Any]] = {
    "--max-accuracy-drop": float,
    "--trials": int,
    "--workers": int,
    "--cpus": float,
    "--gpus": float,
    "--seed": int,
}
# Options of a run that are none of its search.
_NOT_OF_A_SEARCH = ("--max-accuracy-drop", "--teacher", "--baseline")
_WORKER_OPTIONS = ("--workers", "--artifacts", "--executor", "--address", "--cpus", "--gpus")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parser().parse_args(_joined(given))
    again = f"nas {shlex.join(given)}"
    try:
        with no_interrupt_lost():
            code = _COMMANDS[parsed.verb](parsed)
        sys.stdout.flush()
    except (InputError, NothingFitsError, CrashError) as error:
        return _explained(error, again)
    except BrokenPipeError:  # the reader of the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"\nnas: interrupted; to resume: {again}", file=sys.stderr)
        return 130
    except Exception as error:
        if not disk_is_full(error):
            raise
        print(f"nas: error: the disk is full; free some space, then resume: {again}", file=sys.stderr)
        return 2
    return code or 0


def _explained(error: InputError | NothingFitsError | CrashError, again: str) -> int:
    """Print the one line of an error that is no bug of ours; its exit code."""
    if isinstance(error, CrashError):
        print(f"nas: error: {error}; what was done is kept, to resume: {again}", file=sys.stderr)
        return 1
    if isinstance(error, NothingFitsError):
        print(f"nas: nothing fits: {error}", file=sys.stderr)
        return 3
    print(f"nas: error: {error}", file=sys.stderr)
    return 2


def _joined(arguments: Sequence[str]) -> list[str]:
    """``--latency -5ms`` as ``--latency=-5ms``, so that it is taken for a value, and refused as one."""
    joined: list[str] = []
    for argument in arguments:
        if re.match(r"-\d", argument) and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(2, f"nas: error: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="nas", description="Neural networks that fit: images and a device budget in, a verified file out."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    run = verbs.add_parser("run", help="search, train, compress and verify a network")
    _add_run_options(run, tuple(_RUN_OPTIONS))
    run.add_argument("--json", action="store_true", help="print metrics.json instead of the table")
    searched = verbs.add_parser("search", help="the search alone: the most accurate network within the budget")
    _add_run_options(searched, tuple(option for option in _RUN_OPTIONS if option not in _NOT_OF_A_SEARCH))
    searched.add_argument("--json", action="store_true", help="print what was found as JSON")
    worker = verbs.add_parser("worker", help="work on a study that `nas search --storage` or `nas run --storage` made")
    worker.add_argument("study", help="its name")
    worker.add_argument("--storage", required=True, help="where the study is kept")
    worker.add_argument("--data", required=True, help="the images that the study was made with")
    for option in _WORKER_OPTIONS:
        worker.add_argument(option, type=_NUMBERS.get(option, str), help=_RUN_OPTIONS[option])
    reported = verbs.add_parser("report", help="write report.html of a finished run again")
    reported.add_argument("run", help="its folder")
    listed = verbs.add_parser("list", help="spaces, presets, devices")
    listed.add_argument("--json", action="store_true")
    _add_devices(verbs)
    _add_profile(verbs)
    _add_select(verbs)
    _add_export(verbs)
    _add_compare(verbs)
    return parser


def _add_run_options(parser: argparse.ArgumentParser, options: Sequence[str]) -> None:
    parser.add_argument("config", nargs="?", help="TOML file with the same entries as the options")
    for option in options:
        parser.add_argument(option, type=_NUMBERS.get(option, str), help=_RUN_OPTIONS[option])
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="any entry of the config")


def _add_devices(verbs: Any) -> None:
    devices = verbs.add_parser("devices", help="the devices that are known; show one; measure this machine; calibrate")
    devices.add_argument("--json", action="store_true")
    devices.set_defaults(what=None)
    what = devices.add_subparsers(dest="what", metavar="show | measure | calibrate")
    shown = what.add_parser("show", help="show a device's specifications and kernel costs")
    shown.add_argument("device", help="name, or .toml file")
    measured = what.add_parser("measure", help="write a device file for this machine from the times of random networks")
    measured.add_argument("--out", help="the .toml file; rerun the same command to resume")
    measured.add_argument("--time", help="time for everything, such as 10min (the default)")
    measured.add_argument("--threads", type=int, default=1, help="that a network runs on")
    measured.add_argument("--precision", default="fp32,int8", help="fp32, int8 or both")
    calibrated = what.add_parser("calibrate", help="write a device file from a few latencies that were measured on it")
    calibrated.add_argument("--base", help="the device that is most like it: name, or .toml file")
    calibrated.add_argument("--from", dest="table", metavar="TABLE.csv", help="columns model,latency_ms[,precision]")
    calibrated.add_argument("--out", help="the .toml file")
    calibrated.add_argument("--name", help="of the new device; that of the file by default")
    calibrated.add_argument("--input-shape", metavar="CxHxW", help="such as 3x224x224, where a model leaves it open")
    for part in (shown, measured, calibrated):
        part.add_argument("--json", action="store_true", default=argparse.SUPPRESS)


def _add_profile(verbs: Any) -> None:
    profiled = verbs.add_parser("profile", help="what a network costs on a device, layer by layer")
    profiled.add_argument("model", help="preset, timm:NAME, .onnx file, or the arch.json of a run")
    profiled.add_argument("--device", default="host", help="name (see `nas devices`) or .toml file")
    profiled.add_argument("--precision", help="fp32 (the default) or int8; an .onnx file is taken as it is")
    profiled.add_argument("--input-shape", metavar="CxHxW", help="such as 3x224x224, where the model leaves it open")
    profiled.add_argument("--measure", action="store_true", help="run it on this machine")
    profiled.add_argument("--html", metavar="FILE", help="write a page with pictures as well")
    profiled.add_argument("--json", action="store_true", help="print everything as JSON")


def _add_select(verbs: Any) -> None:
    selected = verbs.add_parser("select", help="timm's pretrained models within a budget, by published accuracy")
    selected.add_argument("--device", default="host", help=_RUN_OPTIONS["--device"])
    selected.add_argument("--latency", help=_RUN_OPTIONS["--latency"])
    selected.add_argument("--ram", help=_RUN_OPTIONS["--ram"])
    selected.add_argument("--flash", help=_RUN_OPTIONS["--flash"])
    selected.add_argument("--energy", help="limit such as 2mJ, for devices whose power is known")
    selected.add_argument("--precision", default="fp32", help="fp32 (the default) or int8")
    selected.add_argument("--top", type=int, default=10, help="how many are listed")
    selected.add_argument("--measure", type=int, default=0, metavar="K", help="run the first K on this machine")
    selected.add_argument("--html", metavar="FILE", help="write a page with the Pareto plot as well")
    selected.add_argument("--json", action="store_true", help="print everything as JSON")


def _add_export(verbs: Any) -> None:
    exported = verbs.add_parser("export", help="an int8 network as plain C99 for a microcontroller")
    exported.add_argument("source", help="folder of a run that deployed int8, or an int8 .onnx file")
    exported.add_argument("--format", choices=["c99"], default="c99")
    exported.add_argument("--out", required=True, help="folder to write")
    exported.add_argument("--force", action="store_true", help="write into a folder that is not empty")
    exported.add_argument(
        "--data", help="what the network was trained on: its test images are stored and verified with"
    )
    exported.add_argument("--verify", action="store_true", help="build it, run it, compare it with the file")


def _add_compare(verbs: Any) -> None:
    compared = verbs.add_parser(
        "compare", help="two files on the same images: accuracies, agreement, first layer that diverges"
    )
    for letter in "ab":
        compared.add_argument(letter, help="an .onnx or .fnz file, or the folder of a run")
    compared.add_argument("--data", help="what the networks were trained on; of a run's folder that is known")
    compared.add_argument("--seed", type=int, help="of the split; a run's own, else 0")
    compared.add_argument("--threshold", type=float, default=0.1, help="relative error from which a layer diverges")
    compared.add_argument("--measure", action="store_true", help="run both in turn on this machine")
    compared.add_argument("--device", default="host", help="name or .toml file of this machine")
    compared.add_argument("--json", action="store_true", help="print everything as JSON")


def _overrides(parsed: argparse.Namespace) -> dict[str, Any]:
    """The entries of the config that a command line gives, checked before torch is loaded."""
    names = [option[2:].replace("-", "_") for option in _RUN_OPTIONS]
    overrides = {name: getattr(parsed, name) for name in names if hasattr(parsed, name)}
    with user_input():
        overrides |= dict(parse_assignment(text) for text in parsed.set)
        load_config(parsed.config, overrides)
    return overrides


def _quiet() -> None:
    warnings.filterwarnings("ignore", category=UserWarning)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _run(parsed: argparse.Namespace) -> None:
    overrides = _overrides(parsed)
    _quiet()
    logging.basicConfig(stream=sys.stderr, format="nas: %(message)s", level=logging.WARNING)
    from nas.pipeline.run import run
    from nas.results.tables import table

    result = run(parsed.config, **overrides)
    for line in result.metrics["warnings"]:
        print(f"nas: warning: {line}", file=sys.stderr)
    if parsed.json:
        print(json_text(result.metrics))
    else:
        print(f"\n{table(result.metrics)}\n\n{result.metrics['verdict']}\nreport: {result.folder / 'report.html'}")


def _search(parsed: argparse.Namespace) -> None:
    overrides = _overrides(parsed)
    _quiet()
    from nas.commands.search import run_search

    run_search(parsed, overrides)


def _worker(parsed: argparse.Namespace) -> None:
    _quiet()
    from nas.commands.search import run_worker

    names = ("storage", "data", *(option[2:] for option in _WORKER_OPTIONS))
    run_worker(parsed.study, {name: value for name in names if (value := getattr(parsed, name)) is not None})


def _report(parsed: argparse.Namespace) -> None:
    from compress.atomic_files import write_text
    from nas.report.page import render_run

    path = Path(parsed.run) / "report.html"
    with user_input():
        write_text(path, render_run(Path(parsed.run)))
    print(f"report: {path}")


def _list(parsed: argparse.Namespace) -> None:
    from hw_profiles import list_devices
    from search_spaces import list_presets, list_spaces

    found = {"spaces": list_spaces(), "presets": list_presets(), "devices": list_devices()}
    if parsed.json:
        print(json_text(found))
    else:
        print("\n".join(f"{kind}: {', '.join(names)}" for kind, names in found.items()))


def _devices(parsed: argparse.Namespace) -> None:
    from nas.commands.devices import run_devices

    run_devices(parsed)


def _profile(parsed: argparse.Namespace) -> None:
    from nas.commands.profile import run_profile

    run_profile(parsed)


def _select(parsed: argparse.Namespace) -> None:
    from nas.commands.select import run_select

    run_select(parsed)


def _export(parsed: argparse.Namespace) -> int:
    from nas.commands.export import run_export

    return run_export(parsed)


def _compare(parsed: argparse.Namespace) -> None:
    from nas.commands.compare import run_compare

    run_compare(parsed)


_COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "run": _run, "search": _search, "worker": _worker, "report": _report, "list": _list, "devices": _devices,
    "profile": _profile, "select": _select, "export": _export, "compare": _compare,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
