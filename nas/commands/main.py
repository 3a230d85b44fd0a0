"""The command ``nas``: parse, call one public function, print."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from compress.atomic_files import json_text
from nas.commands.compress import add_compress_options, compression_text, run_compress
from nas.commands.examples import epilog
from nas.commands.interrupts import no_interrupt_lost
from nas.commands.output.log_output import add_verbosity, log_on_stderr
from nas.commands.setup.completion import add_completion
from nas.config import default_text, load_config, parse_assignment, settings, type_of
from nas.errors import CrashError, InputError, NothingFitsError, disk_is_full, user_input

# Those of `nas run`, with their help.
_RUN_OPTIONS = {
    f"--{name.replace('_', '-')}": f"{setting.text} (default: {default_text(name)})"
    for name, setting in settings().items()
    if setting.option
}
_JSON = "print JSON instead of text (default: off)"
_DESCRIPTION = """\
Find, train and compress an image classifier that fits a device.
Give it labelled images and limits on latency, memory and file size."""
# Options of `nas run` that `nas search` does not have.
_NOT_OF_A_SEARCH = ("--max-accuracy-drop", "--teacher", "--baseline")
_WORKER_OPTIONS = ("--workers", "--artifacts", "--executor", "--address", "--cpus", "--gpus")
_WORKER_HELP = {"--workers": "candidates trained at the same time, each in its own process (default: 1)"}


_SENTENCES = {
    "doctor": "Check whether a run works on this machine: packages, a training step, ONNX Runtime, compilers, noise.",
    "init": "Write a TOML file with all settings of `nas run`, each with its meaning and default.",
    "run": "Find, train and compress a network within the limits, run the file on the test images, write a report.",
    "search": "Search for the most accurate network within the limits, and print the Pareto front.",
    "worker": "Train candidates of a search that another process or machine has started, until it is complete.",
    "report": "Write report.html of a finished run again, from the files in its folder. With several folders: one page "
    "that compares them.",
    "list": "List the search spaces, the preset networks and the devices.",
    "devices": "List the known devices, show one, check or measure this machine, measure another one, calibrate one.",
    "devices show": "Show a device: where its figures come from, how accurate its estimates are, its kernel costs.",
    "devices check": "Run ten networks on this machine and compare their times with the estimates of a device file.",
    "devices measure": "Measure networks on this machine, or on another one by ssh, and write its device file.",
    "devices kit": "Write small networks and a script that times them on a device with Python and onnxruntime.",
    "devices calibrate": "Write a device file from a similar device and a few latencies measured on the new one.",
    "select": "Rank timm's pretrained models within the limits by their published ImageNet accuracy.",
    "profile": "Show MACs, bytes, memory and latency of a network on a device, layer by layer.",
    "export": "Write an int8 network as C99 source code that needs neither a heap nor a library.",
    "compress": "Make a trained network smaller and faster on a device without losing more than a promised accuracy.",
    "compare": "Run two files on the same test images: accuracy, agreement, and the first layer that diverges.",
}


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
    except BrokenPipeError:  # the reader of the output, such as `head`, closed the pipe
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
        print(f"nas: error: {error}; finished work is kept, to resume: {again}", file=sys.stderr)
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
    def __init__(self, **how: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **how)

    def error(self, message: str) -> Any:
        self.exit(2, f"nas: error: {message}; see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nas", description=_DESCRIPTION)
    parser.add_argument(
        "--version", action="version", version=f"fitnas {version('fitnas')}", help="print the version and exit"
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    run = verbs.add_parser("run", help="search, train, compress and verify a network")
    _add_run_options(run, tuple(_RUN_OPTIONS))
    run.add_argument("--json", action="store_true", help="print metrics.json instead of the table (default: off)")
    _add_init(verbs)
    examined = verbs.add_parser("doctor", help="check the installation and this machine")
    examined.add_argument("--json", action="store_true", help=_JSON)
    searched = verbs.add_parser("search", help="search only: find the most accurate network within the budget")
    _add_run_options(searched, tuple(option for option in _RUN_OPTIONS if option not in _NOT_OF_A_SEARCH))
    searched.add_argument("--json", action="store_true", help=_JSON)
    compressed = verbs.add_parser("compress", help="make a trained network smaller within a promised accuracy")
    add_compress_options(compressed, _JSON)
    add_verbosity(compressed)
    worker = verbs.add_parser("worker", help="train candidates for a search that was started with --storage")
    worker.add_argument("study", help="name of the study (required)")
    worker.add_argument("--storage", required=True, help="where the study is stored (required)")
    worker.add_argument("--data", required=True, help="the same images that the study was started with (required)")
    for option in _WORKER_OPTIONS:
        _add_option(worker, option, _WORKER_HELP.get(option))
    add_verbosity(worker)
    reported = verbs.add_parser("report", help="write report.html of a finished run again, or compare runs on one page")
    reported.add_argument(
        "run", nargs="+", metavar="FOLDER", help="folder of a run; two to four of them are compared (required)"
    )
    reported.add_argument(
        "--out", metavar="FILE", help="page to write (default: report.html in the folder, or comparison.html here)"
    )
    listed = verbs.add_parser("list", help="list search spaces, presets and devices")
    listed.add_argument("--json", action="store_true", help=_JSON)
    _add_devices(verbs)
    _add_profile(verbs)
    _add_select(verbs)
    _add_export(verbs)
    _add_compare(verbs)
    for verb, parts in verbs.choices.items():
        parts.description = _wrapped(verb)
        parts.epilog = epilog(verb)
    add_completion(parser)
    return parser


def _wrapped(verb: str) -> str:
    return textwrap.fill(_SENTENCES.get(verb, ""), 78)


def _add_run_options(parser: argparse.ArgumentParser, options: Sequence[str]) -> None:
    parser.add_argument("config", nargs="?", help="TOML file of settings, such as `nas init` writes (default: none)")
    _add_settings(parser, options)
    add_verbosity(parser)


def _add_init(verbs: Any) -> None:
    init = verbs.add_parser("init", help="write a commented TOML file with all settings of `nas run`")
    init.add_argument("file", nargs="?", default="fitnas.toml", help=".toml file to write (default: fitnas.toml)")
    init.add_argument("--force", action="store_true", help="overwrite a file that exists (default: off)")
    _add_settings(init, tuple(_RUN_OPTIONS))


def _add_settings(parser: argparse.ArgumentParser, options: Sequence[str]) -> None:
    sections = {setting.section: parser.add_argument_group(setting.section) for setting in settings().values()}
    for option in options:
        _add_option(sections[settings()[_name(option)].section], option)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other setting, such as train_epochs=50; can be repeated (default: none)",
    )


def _name(option: str) -> str:
    """That of the setting."""
    return option[2:].replace("-", "_")


def _add_option(parser: argparse._ActionsContainer, option: str, text: str | None = None) -> None:
    name = _name(option)
    parser.add_argument(option, type=type_of(name), metavar=settings()[name].metavar, help=text or _RUN_OPTIONS[option])


def _add_devices(verbs: Any) -> None:
    devices = verbs.add_parser("devices", help="list devices, show one, or make one from measurements")
    devices.add_argument("--json", action="store_true", help=_JSON)
    devices.set_defaults(what=None)
    what = devices.add_subparsers(dest="what", metavar="show | check | measure | kit | calibrate")
    shown = what.add_parser("show", help="show a device's specifications and kernel costs")
    shown.add_argument("device", help="name or .toml file (required)")
    checked = what.add_parser("check", help="run ten networks to see whether a device file fits this machine")
    checked.add_argument("device", nargs="?", default="host", help="name or .toml file (default: host)")
    measured = what.add_parser("measure", help="measure this machine, or another one by ssh, and write a device file")
    measured.add_argument("--out", metavar="FILE", help=".toml file to write (required); rerun the command to resume")
    measured.add_argument("--time", metavar="TIME", help="time for the whole measurement (default: 10min)")
    measured.add_argument(
        "--base", metavar="DEVICE",
        help="name or .toml file of the device to start from; none starts from nothing (default: host)",
    )  # fmt: skip
    measured.add_argument(
        "--ssh", metavar="USER@HOST", help="machine to measure by the kit in place of this one (default: this machine)"
    )
    measured.add_argument("--ssh-config", metavar="FILE", help="configuration file of ssh (default: that of ssh)")
    measured.add_argument(
        "--remote-python",
        default="python3",
        metavar="PROGRAM",
        help="its Python with onnxruntime (default: python3)",
    )
    measured.add_argument("--threads", type=int, default=1, metavar="N", help="threads per network (default: 1)")
    measured.add_argument("--precision", default="fp32,int8", help="fp32, int8 or both (default: fp32,int8)")
    kit = what.add_parser("kit", help="write networks and a script that times them on a device")
    kit.add_argument("--out", metavar="FOLDER", help="new or empty folder (required)")
    kit.add_argument(
        "--board", action="store_true", help="a C99 project for a microcontroller instead, in int8 (default: off)"
    )
    kit.add_argument("--precision", default="fp32,int8", help="fp32, int8 or both (default: fp32,int8)")
    calibrated = what.add_parser("calibrate", help="write a device file from a few latencies measured on the device")
    calibrated.add_argument("--base", metavar="DEVICE", help="name or .toml file of the most similar device (required)")
    calibrated.add_argument(
        "--from", dest="table", metavar="FILE",
        help="result.json of the kit, or a .csv file with the columns model,latency_ms[,precision] (required)",
    )  # fmt: skip
    calibrated.add_argument(
        "--runtime", help="runtime of the times, one of those of the base (default: that of the base or of result.json)"
    )
    calibrated.add_argument("--out", metavar="FILE", help=".toml file to write (required)")
    calibrated.add_argument("--name", help="name of the new device (default: the name of the file)")
    calibrated.add_argument(
        "--input-shape", metavar="CxHxW", help="such as 3x224x224 (default: the input shape of each model)"
    )
    parts = {"show": shown, "check": checked, "measure": measured, "kit": kit, "calibrate": calibrated}
    for name, part in parts.items():
        part.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=_JSON)
        part.description, part.epilog = _wrapped(f"devices {name}"), epilog(f"devices {name}")


def _add_profile(verbs: Any) -> None:
    profiled = verbs.add_parser("profile", help="show what a network costs on a device, layer by layer")
    profiled.add_argument("model", help="preset, timm:NAME, .onnx file, or the arch.json of a run (required)")
    profiled.add_argument("--device", default="host", help=_RUN_OPTIONS["--device"])
    profiled.add_argument("--precision", help="fp32 or int8; not for .onnx files, which state it (default: fp32)")
    profiled.add_argument(
        "--input-shape",
        metavar="CxHxW",
        help="such as 3x224x224, or image=3x64x64,sizes=2 for several inputs (default: the input shape of the model)",
    )
    profiled.add_argument("--measure", action="store_true", help="also run it on this machine (default: off)")
    profiled.add_argument(
        "--check", action="store_true", help="also show what fvcore counts for the network (default: off)"
    )
    profiled.add_argument("--html", metavar="FILE", help="also write an HTML page with charts (default: none)")
    profiled.add_argument("--json", action="store_true", help=_JSON)


def _add_select(verbs: Any) -> None:
    selected = verbs.add_parser("select", help="rank timm's pretrained models within a budget by published accuracy")
    for option in ("--latency", "--ram", "--flash", "--energy"):
        _add_option(selected, option)
    selected.add_argument("--device", default="host", help=_RUN_OPTIONS["--device"])
    selected.add_argument("--precision", default="fp32", help="fp32 or int8 (default: fp32)")
    selected.add_argument("--top", type=int, default=10, metavar="N", help="number of models listed (default: 10)")
    selected.add_argument(
        "--measure", type=int, default=0, metavar="N", help="also run the first N on this machine (default: 0)"
    )
    selected.add_argument("--html", metavar="FILE", help="also write an HTML page with the Pareto plot (default: none)")
    selected.add_argument("--json", action="store_true", help=_JSON)


def _add_export(verbs: Any) -> None:
    exported = verbs.add_parser("export", help="write an int8 network as C99 source code")
    exported.add_argument("source", help="folder of a run that deployed int8, or an int8 .onnx file (required)")
    exported.add_argument("--format", choices=["c99"], default="c99", help="output format (default: c99)")
    exported.add_argument("--out", required=True, metavar="FOLDER", help="folder to write (required)")
    exported.add_argument("--force", action="store_true", help="write into a folder that is not empty (default: off)")
    exported.add_argument(
        "--data",
        help="images that the network was trained on; some test images are stored as test vectors (default: none)",
    )
    exported.add_argument(
        "--verify",
        action="store_true",
        help="compile and run the program and compare its outputs with ONNX Runtime's, on random inputs unless --data "
        "is given (default: off)",
    )


def _add_compare(verbs: Any) -> None:
    compared = verbs.add_parser("compare", help="run two files on the same images and compare their outputs")
    for letter in "ab":
        compared.add_argument(letter, help=".onnx or .fnz file, or the folder of a run (required)")
    compared.add_argument("--data", help="images that the networks were trained on (default: those of the run)")
    compared.add_argument("--seed", type=int, metavar="N", help="seed of the split (default: that of the run, or 0)")
    compared.add_argument(
        "--threshold", type=float, default=0.1, help="relative error at which a layer counts as diverged (default: 0.1)"
    )
    compared.add_argument(
        "--measure", action="store_true", help="also measure the latency of both on this machine (default: off)"
    )
    compared.add_argument("--device", default="host", help="device of --measure, a name or .toml file (default: host)")
    compared.add_argument("--json", action="store_true", help=_JSON)


def _overrides(parsed: argparse.Namespace) -> dict[str, Any]:
    """The entries of the config that a command line gives, checked before torch is loaded."""
    overrides = _given(parsed)
    with user_input():
        load_config(parsed.config, overrides)
    return overrides


def _given(parsed: argparse.Namespace) -> dict[str, Any]:
    """The settings that a command line gives, by ``--set`` as well."""
    with user_input():
        assigned = dict(parse_assignment(text) for text in parsed.set)
    return {name: getattr(parsed, name) for name in map(_name, _RUN_OPTIONS) if hasattr(parsed, name)} | assigned


def _run(parsed: argparse.Namespace) -> None:
    overrides = _overrides(parsed)
    with log_on_stderr(verbose=parsed.verbose, quiet=parsed.quiet):
        from nas.pipeline.run import run
        from nas.results.tables import table

        result = run(parsed.config, **overrides)
    for line in result.metrics["warnings"]:
        print(f"nas: warning: {line}", file=sys.stderr)
    if parsed.json:
        print(json_text(result.metrics))
    else:
        print(f"\n{table(result.metrics)}\n\n{result.metrics['verdict']}\nreport: {result.folder / 'report.html'}")


def _init(parsed: argparse.Namespace) -> None:
    from nas.commands.setup.settings_file import run_init

    run_init(parsed, _given(parsed))


def _doctor(parsed: argparse.Namespace) -> int:
    from nas.commands.setup.doctor import run_doctor

    return run_doctor(parsed)


def _search(parsed: argparse.Namespace) -> None:
    overrides = _overrides(parsed)
    with log_on_stderr(verbose=parsed.verbose, quiet=parsed.quiet):
        from nas.commands.search import run_search

        run_search(parsed, overrides)


def _compress(parsed: argparse.Namespace) -> None:
    with log_on_stderr(verbose=parsed.verbose, quiet=parsed.quiet):
        metrics = run_compress(parsed)
    for line in metrics["warnings"]:
        print(f"nas: warning: {line}", file=sys.stderr)
    print(compression_text(metrics, as_json=parsed.json))


def _worker(parsed: argparse.Namespace) -> None:
    with log_on_stderr(verbose=parsed.verbose, quiet=parsed.quiet):
        from nas.commands.search import run_worker

        names = ("storage", "data", *(option[2:] for option in _WORKER_OPTIONS))
        run_worker(parsed.study, {name: value for name in names if (value := getattr(parsed, name)) is not None})


def _report(parsed: argparse.Namespace) -> None:
    from nas.commands.report import run_report

    run_report(parsed)


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
    "run": _run, "init": _init, "doctor": _doctor, "search": _search, "compress": _compress, "worker": _worker,
    "report": _report, "list": _list, "devices": _devices, "profile": _profile, "select": _select, "export": _export,
    "compare": _compare,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
