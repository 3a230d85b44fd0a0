"""The command ``nas``: parse, call one public function, print."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import Any

from compress.atomic_files import json_text
from nas.commands.compress import add_compress_options, compression_text, run_compress
from nas.commands.examples import epilog
from nas.commands.interrupts import no_interrupt_lost
from nas.commands.output.log_output import add_verbosity, light_log, log_on_stderr
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
_BOTH = "fp32 (float32), int8, or fp32,int8 for both (default: fp32,int8)"
_DESCRIPTION = """\
Search for, train and compress an image classifier for a target device,
given labelled images and limits on latency, memory and model size."""
# Options of `nas run` that `nas search` does not have.
_NOT_OF_A_SEARCH = ("--max-accuracy-drop", "--teacher", "--baseline")
_WORKER_OPTIONS = ("--workers", "--artifacts", "--executor", "--address", "--cpus", "--gpus")
_MEASURING_VERBS = ("devices", "profile", "select")
_TRAINING_VERBS = ("run", "search", "compress", "worker")
_WORKER_HELP = {"--workers": "number of candidates trained in parallel, each in its own process (default: 1)"}


_SENTENCES = {
    "doctor": "Check that fitnas can run on this machine: packages, one training step, ONNX Runtime, compilers and "
    "timing noise.",
    "init": "Write a TOML file with all settings of `nas run`, each with a description and its default value.",
    "run": "Search for, train and compress a model within the limits, evaluate it on the test set and write a report.",
    "search": "Search for the most accurate architecture within the limits, and print the Pareto front.",
    "worker": "Join a search started by another process or machine and train its candidates until the search is "
    "complete.",
    "report": "Regenerate report.html from the files of a finished run. Given several runs, write one page "
    "that compares them.",
    "list": "List the search spaces, the preset architectures and the devices.",
    "devices": "List the built-in devices; show, check, benchmark or calibrate one.",
    "devices show": "Show a device: the sources of its figures, the accuracy of its latency estimates, and the cost "
    "coefficients of each kind of kernel (operator).",
    "devices check": "Benchmark ten networks on this machine and compare the measured latencies with the estimates "
    "of a device file.",
    "devices measure": "Benchmark networks on this machine, or on a remote one over SSH, and write a device file "
    "for it.",
    "devices kit": "Write a benchmark kit: small networks and a script that times them on any device with Python and "
    "onnxruntime.",
    "devices calibrate": "Create a device file from a similar device and a few latencies measured on the new device.",
    "select": "Rank, by published ImageNet accuracy, the pretrained timm models that meet the limits.",
    "profile": "Show the MACs, weight size, memory and latency of a model on a device, layer by layer.",
    "export": "Export an int8 model as C99 source code with no heap allocation and no dependencies.",
    "compress": "Make a trained model smaller and faster on a device while keeping the accuracy drop within a limit.",
    "compare": "Evaluate two models on the same test images and report accuracy, agreement and the first "
    "diverging layer.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parser().parse_args(_joined(given))
    again = f"nas {shlex.join(given)}"
    try:
        with no_interrupt_lost(), _log_of(parsed):
            code = _COMMANDS[parsed.verb](parsed)
        sys.stdout.flush()
    except (InputError, NothingFitsError, CrashError) as error:
        return _explained(error, again)
    except BrokenPipeError:  # the reader of the output, such as `head`, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"\nnas: interrupted. To resume, run: {again}", file=sys.stderr)
        return 130
    except Exception as error:
        if not disk_is_full(error):
            raise
        print(f"nas: error: the disk is full. Free some space, then run again: {again}", file=sys.stderr)
        return 2
    return code or 0


def _log_of(parsed: argparse.Namespace) -> AbstractContextManager[None]:
    """What appears on stderr; the verbs that train load more for it, and do so once their arguments are checked. Those
    that neither train nor measure log only where they are asked to."""
    asked = parsed.verb in _MEASURING_VERBS or parsed.verbose or parsed.quiet
    if parsed.verb in _TRAINING_VERBS or not asked:
        return nullcontext()
    return light_log(verbose=parsed.verbose, quiet=parsed.quiet)


def _explained(error: InputError | NothingFitsError | CrashError, again: str) -> int:
    """Print the one line of an error that is no bug of ours; its exit code."""
    if isinstance(error, CrashError):
        print(f"nas: error: {error}. Completed work was saved. To resume, run: {again}", file=sys.stderr)
        return 1
    if isinstance(error, NothingFitsError):
        print(f"nas: error: no network meets the limits: {error}", file=sys.stderr)
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
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    run = verbs.add_parser("run", help="search for, train, compress and test a model")
    _add_run_options(run, tuple(_RUN_OPTIONS))
    run.add_argument("--json", action="store_true", help="print metrics.json instead of the table (default: off)")
    _add_init(verbs)
    examined = verbs.add_parser("doctor", help="check the installation and the machine")
    examined.add_argument("--json", action="store_true", help=_JSON)
    searched = verbs.add_parser("search", help="run the search only and print the Pareto front")
    _add_run_options(searched, tuple(option for option in _RUN_OPTIONS if option not in _NOT_OF_A_SEARCH))
    searched.add_argument("--json", action="store_true", help=_JSON)
    compressed = verbs.add_parser("compress", help="compress a trained model while limiting the accuracy drop")
    add_compress_options(compressed, _JSON)
    worker = verbs.add_parser("worker", help="join a search started with --storage and train its candidates")
    worker.add_argument("study", help="name of the study")
    worker.add_argument(
        "--storage", required=True, help="storage that the study was started with, e.g. search.journal (required)"
    )
    worker.add_argument("--data", required=True, help="dataset that the study was started with (required)")
    for option in _WORKER_OPTIONS:
        _add_option(worker, option, _WORKER_HELP.get(option))
    reported = verbs.add_parser("report", help="regenerate report.html for a finished run, or compare runs on one page")
    reported.add_argument("run", nargs="+", metavar="FOLDER", help="run folder; give two to four to compare them")
    reported.add_argument(
        "--out",
        metavar="FILE",
        help="HTML file to write (default: report.html in the run folder, or comparison.html in the current folder)",
    )
    listed = verbs.add_parser("list", help="list search spaces, preset architectures and devices")
    listed.add_argument("--json", action="store_true", help=_JSON)
    _add_devices(verbs)
    _add_profile(verbs)
    _add_select(verbs)
    _add_export(verbs)
    _add_compare(verbs)
    for verb, parts in verbs.choices.items():
        add_verbosity(parts)
        parts.description = _wrapped(verb)
        parts.epilog = epilog(verb)
    add_completion(parser)
    return parser


def _wrapped(verb: str) -> str:
    return textwrap.fill(_SENTENCES.get(verb, ""), 78)


def _add_run_options(parser: argparse.ArgumentParser, options: Sequence[str]) -> None:
    parser.add_argument("config", nargs="?", help="TOML settings file, as written by `nas init` (default: none)")
    _add_settings(parser, options)


def _add_init(verbs: Any) -> None:
    init = verbs.add_parser("init", help="write a commented TOML file with all settings of `nas run`")
    init.add_argument("file", nargs="?", default="fitnas.toml", help=".toml file to write (default: fitnas.toml)")
    init.add_argument("--force", action="store_true", help="overwrite an existing file (default: off)")
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
        help="override any other setting, e.g. train_epochs=50; can be repeated; `nas init` writes a file with all of "
        "them (default: none)",
    )


def _name(option: str) -> str:
    """That of the setting."""
    return option[2:].replace("-", "_")


def _add_option(parser: argparse._ActionsContainer, option: str, text: str | None = None) -> None:
    name = _name(option)
    parser.add_argument(option, type=type_of(name), metavar=settings()[name].metavar, help=text or _RUN_OPTIONS[option])


def _add_devices(verbs: Any) -> None:
    devices = verbs.add_parser("devices", help="list, show, check, benchmark or calibrate devices")
    devices.add_argument("--json", action="store_true", help=_JSON)
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
        part.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=_JSON)
        add_verbosity(part, default=argparse.SUPPRESS)
        part.description, part.epilog = _wrapped(f"devices {name}"), epilog(f"devices {name}")


def _add_profile(verbs: Any) -> None:
    profiled = verbs.add_parser("profile", help="show per-layer MACs, memory and latency of a model on a device")
    profiled.add_argument("model", help="preset (see `nas list`), timm:NAME, .onnx file, or the arch.json of a run")
    profiled.add_argument("--device", default="host", help=_RUN_OPTIONS["--device"])
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
    profiled.add_argument("--json", action="store_true", help=_JSON)


def _add_select(verbs: Any) -> None:
    selected = verbs.add_parser("select", help="rank the timm models that meet the limits, by published accuracy")
    for option in ("--latency", "--ram", "--flash", "--energy"):
        _add_option(selected, option, f"{settings()[_name(option)].text} (default: no limit)")
    selected.add_argument("--device", default="host", help=_RUN_OPTIONS["--device"])
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
    selected.add_argument("--json", action="store_true", help=_JSON)


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
