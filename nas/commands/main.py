"""The command ``nas``: parse, call one public function, print."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import Any

from compress.atomic_files import json_text
from hw_profiles.spelling_suggestions import did_you_mean
from nas.commands.compress import compression_text, run_compress
from nas.commands.interrupts import no_interrupt_lost
from nas.commands.options.device_options import add_devices
from nas.commands.options.help_texts import describe
from nas.commands.options.model_options import add_model_verbs
from nas.commands.options.search_options import WORKER_OPTIONS, add_search_verbs
from nas.commands.options.setting_options import JSON, RUN_OPTIONS, setting_name
from nas.commands.output.log_output import add_verbosity, light_log, log_on_stderr
from nas.commands.setup.completion import add_completion
from nas.config import load_config, parse_assignment, settings
from nas.errors import CrashError, InputError, NothingFitsError, disk_is_full, user_input

_DESCRIPTION = """\
Search for, train and compress an image classifier for a target device,
given labeled images and limits on latency, memory and model size."""
_MEASURING_VERBS = ("devices", "profile", "select")
_TRAINING_VERBS = ("run", "search", "compress", "worker")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parsed(_joined(given))
    again = f"nas {shlex.join(given)}"
    try:
        with no_interrupt_lost(), _log_of(parsed):
            code = _COMMANDS[parsed.verb](parsed)
        sys.stdout.flush()
    except (InputError, NothingFitsError, CrashError) as error:
        return _explained(error, given, again)
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


def _explained(error: InputError | NothingFitsError | CrashError, given: Sequence[str], again: str) -> int:
    """Print the one line of an error that is no bug of ours; its exit code."""
    if isinstance(error, CrashError):
        print(f"nas: error: {error}. Completed work was saved. To resume, run: {again}", file=sys.stderr)
        return 1
    if isinstance(error, NothingFitsError):
        print(f"nas: error: no network meets the limits: {error}", file=sys.stderr)
        return 3
    print(f"nas: error: {_with_dashes(str(error), given)}", file=sys.stderr)
    return 2


def _with_dashes(message: str, given: Sequence[str]) -> str:
    """A message that begins with the name of an argument in Python, as one about the option that was given.

    >>> _with_dashes("max_accuracy_drop must be above 0", ["run", "--max-accuracy-drop=-1"])
    '--max-accuracy-drop must be above 0'
    """
    name, space, rest = message.partition(" ")
    option = f"--{name.replace('_', '-')}"
    return f"{option}{space}{rest}" if any(each.partition("=")[0] == option for each in given) else message


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
        if wrong := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message):
            message += did_you_mean(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        see = " See" if message.endswith("?") else "; see"
        self.exit(2, f"nas: error: {message}{see} `{self.prog} --help`\n")


def _parsed(given: Sequence[str]) -> argparse.Namespace:
    """The arguments; of options that the verb does not have the nearest ones are named."""
    parser = _parser()
    parsed, unknown = parser.parse_known_args(given)
    if unknown:
        of_verb = _parser_of(parser, parsed)
        hints = [_hint(each, [*of_verb._option_string_actions]) for each in unknown if each.startswith("--")]
        of_verb.error(f"unrecognized arguments: {' '.join(unknown)}{''.join(hints[:1])}")
    return parsed


def _parser_of(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> argparse.ArgumentParser:
    """The parser of the verb, or of what stands below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and getattr(parsed, action.dest, None):
            return _parser_of(action.choices[getattr(parsed, action.dest)], parsed)
    return parser


def _hint(unknown: str, options: Sequence[str]) -> str:
    """How to give what a verb has no option for.

    >>> _hint("--latancy=5ms", ["--latency"]), _hint("--train-epochs", ["--set"])
    ("; did you mean '--latency'?", '; use --set train_epochs=VALUE')
    """
    option = unknown.partition("=")[0]
    setting = settings().get(setting_name(option))
    if "--set" in options and setting is not None and not setting.option:
        return f"; use --set {setting_name(option)}=VALUE"
    return did_you_mean(option, options)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="nas", description=_DESCRIPTION)
    parser.add_argument(
        "--version", action="version", version=f"fitnas {version('fitnas')}", help="print the version and exit"
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for add in (add_search_verbs, add_model_verbs, add_devices, _add_other_verbs):
        add(verbs)
    for verb, parts in verbs.choices.items():
        add_verbosity(parts)
        describe(parts, verb)
    add_completion(parser)
    return parser


def _add_other_verbs(verbs: Any) -> None:
    reported = verbs.add_parser("report", help="regenerate report.html for a finished run, or compare runs on one page")
    reported.add_argument("run", nargs="+", metavar="FOLDER", help="run folder; give two to four to compare them")
    reported.add_argument(
        "--out",
        metavar="FILE",
        help="HTML file to write (default: report.html in the run folder, or comparison.html in the current folder)",
    )
    listed = verbs.add_parser("list", help="list search spaces, preset architectures and devices")
    listed.add_argument("--json", action="store_true", help=JSON)
    examined = verbs.add_parser("doctor", help="check the installation and the machine")
    examined.add_argument("--json", action="store_true", help=JSON)


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
    return {name: getattr(parsed, name) for name in map(setting_name, RUN_OPTIONS) if hasattr(parsed, name)} | assigned


def _run(parsed: argparse.Namespace) -> None:
    overrides = _overrides(parsed)
    with log_on_stderr(verbose=parsed.verbose, quiet=parsed.quiet):
        from nas.commands.output.run_table import run_table
        from nas.pipeline.run import run

        result = run(parsed.config, **overrides)
    for line in result.metrics["warnings"]:
        print(f"nas: warning: {line}", file=sys.stderr)
    if parsed.json:
        print(json_text(result.metrics))
    else:
        print("", *run_table(result.metrics["rows"]), "", result.metrics["verdict"], sep="\n")
        print(f"report: {result.folder / 'report.html'}")


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

        names = ("storage", "data", *(option[2:] for option in WORKER_OPTIONS))
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
