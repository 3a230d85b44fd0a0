"""Several finished runs on one page: what they reached, and in which settings they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hw_profiles.errors import InputError
from nas.report.accuracy_plot import AccuracyPlot
from nas.report.html import figure, grid, note, page, part, percent, section
from nas.report.run_files import FinishedRun, belongs_to_a_run, read_run
from nas.report.svg import element, joined, label, line, title

MOST_RUNS = 4  # that colors and dashes tell apart
_WIDTH, _HEIGHT = 760, 380
_NOT_COMPARED = ("out", "storage", "study", "artifacts", "workers")  # settings that change no result


def render_comparison(folders: Sequence[Path]) -> str:
    """The page of 2 to 4 finished runs.

    Raises:
        InputError: fewer or more, the same folder twice, or a folder without a finished run of this version.
    """
    if not 2 <= len(folders) <= MOST_RUNS:
        raise InputError(f"can compare 2 to {MOST_RUNS} runs, got {len(folders)}")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("the same run folder was given twice")
    return render_runs([read_run(folder) for folder in folders])


def render_runs(runs: Sequence[FinishedRun]) -> str:
    """The page of runs that were read."""
    for run in runs:
        with belongs_to_a_run(run.folder):
            _cells("", run.metrics)
            deployed_svg([run])
    head = element("h1", f"Comparison of {len(runs)} runs") + part("warnings", warnings_of(runs))
    return page(
        "fitnas: comparison of runs",
        head,
        section("runs", "Results", _results(runs)),
        section("fronts", "Accuracy and latency of the final models", deployed_svg(runs), _legend(runs), note(
            "Test accuracy with its 95% interval, latency with its 90% interval. If intervals "
            "overlap, the difference may be due to chance.")),
        section("settings", "Settings that differ", _settings(runs)),
    )  # fmt: skip


def warnings_of(runs: Sequence[FinishedRun]) -> list[str]:
    """Why numbers of these runs may not be comparable."""
    questions: dict[str, Callable[[Mapping[str, Any]], object]] = {
        "The runs used different data: their accuracies are not comparable.": lambda m: m["asked"]["data"],
        "The runs have different numbers of test images.": lambda m: m["final"]["test_images"],
        "The runs target different devices: their latencies are not comparable.": lambda m: m["asked"]["device"],
        "Some latencies are measured, others estimated.": lambda m: m["final"]["latency_source"],
        "The runs were executed on different machines: measured latencies may not be comparable.": lambda m: m[
            "environment"
        ].get("measuring"),
    }
    return [text for text, fact in questions.items() if len({repr(fact(run.metrics)) for run in runs}) > 1]


_HEAD = ("run", "final model", "limits", "test accuracy (95% CI)", "balanced accuracy", "latency, ms (90% interval)",
         "latency source", "file size (bytes)", "peak RAM, bytes", "parameters", "minutes",
         "candidates trained")  # fmt: skip


def _results(runs: Sequence[FinishedRun]) -> Markup:
    return grid(_HEAD, [_cells(name, run.metrics) for name, run in zip(names_of(runs), runs, strict=True)], "wide")


def names_of(runs: Sequence[FinishedRun]) -> list[str]:
    """The names of their folders, with as many parents as are needed to make them different.

    >>> names_of([FinishedRun(Path(path), {}, None) for path in ("/a/x/run", "/a/y/run")])
    ['x/run', 'y/run']
    """
    parts = [run.folder.resolve().parts for run in runs]
    count = next(n for n in range(1, max(map(len, parts)) + 1) if len({each[-n:] for each in parts}) == len(parts))
    return ["/".join(each[-count:]) for each in parts]


def _cells(name: str, metrics: Mapping[str, Any]) -> list[str]:
    final = metrics["final"]
    low, high = final["test_accuracy_low"], final["test_accuracy_high"]
    return [
        name,
        metrics["deployed"],
        "met" if metrics["budget_met"] else "exceeded",
        f"{percent(final['test_accuracy'])} ({100 * low:.1f}–{100 * high:.1f})",
        percent(final["test_balanced_accuracy"]),
        f"{final['latency_ms']:.4g} ({final['latency_low_ms']:.4g}–{final['latency_high_ms']:.4g})",
        final["latency_source"],
        f"{final['file_bytes']:,}",
        f"{final['peak_ram_bytes']:,}",
        f"{final['params']:,}",
        f"{metrics['seconds'] / 60:.1f}",
        f"{metrics['trials'].get('COMPLETE', 0):,}",
    ]


def _settings(runs: Sequence[FinishedRun]) -> Markup:
    """One row for each setting that is not the same in all runs."""
    configs = [run.metrics["config"] for run in runs]
    names = [name for name in configs[0] if name not in _NOT_COMPARED]
    differing = [name for name in names if len({repr(config.get(name)) for config in configs}) > 1]
    if not differing:
        return element("p", "All settings are identical.")
    rows = [[name, *(_setting(config.get(name)) for config in configs)] for name in differing]
    return grid(["setting", *names_of(runs)], rows, "names")


def _setting(value: object) -> str:
    return "not set" if value is None else str(value)


def deployed_svg(runs: Sequence[FinishedRun]) -> Markup:
    """The deployed file of each run as a cross of its two intervals."""
    finals = [run.metrics["final"] for run in runs]
    right: float = 1.08 * max(final["latency_high_ms"] for final in finals)
    low: float = max(0.0, min(final["test_accuracy_low"] for final in finals) - 0.01)
    high: float = min(1.0, max(final["test_accuracy_high"] for final in finals) + 0.01)

    plot = AccuracyPlot(width=_WIDTH, height=_HEIGHT, latencies=(0.0, right), accuracies=(low, high))
    names = names_of(runs)
    drawn = [_cross(i, names[i], final, plot) for i, final in enumerate(finals)]
    name = "test accuracy and latency of the final model of each run"
    rows = [
        [
            names[i],
            f"{final['latency_ms']:.4g}",
            f"{final['latency_low_ms']:.4g} to {final['latency_high_ms']:.4g}",
            percent(final["test_accuracy"]),
            f"{percent(final['test_accuracy_low'])} to {percent(final['test_accuracy_high'])}",
        ]
        for i, final in enumerate(finals)
    ]
    return figure(
        plot.picture(name, "latency, ms", "test accuracy", *drawn),
        ["run", "latency, ms", "90% interval", "test accuracy", "95% interval"],
        rows,
    )


def _cross(index: int, name: str, final: Mapping[str, Any], plot: AccuracyPlot) -> Markup:
    x, y = plot.x, plot.y
    at, height = x(final["latency_ms"]), y(final["test_accuracy"])
    text = title(f"{name}: {percent(final['test_accuracy'])}, {final['latency_ms']:.4g} ms")
    return joined(
        (
            line(x(final["latency_low_ms"]), height, x(final["latency_high_ms"]), height, f"run run{index}"),
            line(at, y(final["test_accuracy_low"]), at, y(final["test_accuracy_high"]), f"run run{index}"),
            element("circle", text, cx=at, cy=height, r=5.0, class_=f"run-dot run{index}", role="img", tabindex=0),
            label(at + 8, height - 8, name),
        )
    )


def _legend(runs: Sequence[FinishedRun]) -> Markup:
    shown = [
        element(
            "span",
            element(
                "svg", line(-10, 0, 10, 0, f"run run{i}"), viewBox="-10 -10 20 20", class_="sign", aria_hidden="true"
            ),
            name,
        )
        for i, name in enumerate(names_of(runs))
    ]
    return element("p", *shown, class_="legend")
