"""What a run found: every network beside the others, the verdict, and the one file that is shipped."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna

from compress.atomic_files import read_json, write_bytes
from compress.data.dataset import Dataset, Split
from compress.fnz.encode_stage import Encode
from compress.networks.artifact import Artifact
from compress.networks.onnx_export import differing, predict_onnx
from compress.stage import Context
from compress.stages.runner import STAGES, file_metrics, guaranteed
from compress.training.evaluation import accuracy, balanced_accuracy
from compress.training.teachers import teacher_accuracy
from hw_profiles.budget import violations
from hw_profiles.devices.device import Device
from hw_profiles.onnx_io.reader import read_onnx
from nas.config import Config
from nas.engine.search import CAUSE, COST, WHY, candidate, ranked_trials
from nas.results.network_facts import architecture_facts, estimated_latency, memory_facts
from nas.results.run_warnings import cautions
from nas.results.teacher_info import Lesson
from nas.results.test_statistics import Predictions, class_counts, class_facts, flips, interval_of

SCHEMA = 2
_LABELS = {"distill": "distilled", "prune": "pruned", "int8": "int8"}
_LATENCY = ("latency_ms", "latency_low_ms", "latency_high_ms", "latency_source", "latency_raw_ms")
COLUMNS = ("val acc", "test acc", "params", "MACs", "file bytes", "latency ms (90 %)", "peak RAM", "")


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run: its folder, the deployed file, everything that stands in metrics.json."""

    folder: Path
    deployed: Path
    kept: bool
    metrics: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Findings:
    """What the phases of a run made; ``data`` has the size in which it was read, ``context`` the artifact's."""

    config: Config
    folder: Path
    data: Dataset
    lesson: Lesson
    study: optuna.Study
    artifact: Artifact
    baseline: Artifact | None
    context: Context


def collect(found: Findings) -> Result:
    """Run every file that was made on the test images, which no network has met before, and judge the last one kept."""
    config, folder, artifact, test = found.config, found.folder, found.artifact, found.context.data.test
    runs = _TestRuns()
    rows = _rows(found, runs)
    deployed = _copy_files(artifact, folder)
    final = file_metrics(artifact, deployed, found.context)
    next(row for row in rows if row.get("deployed")).update({name: final[name] for name in _LATENCY})
    excess = violations(guaranteed(final), config.budget.limits())
    predictions = runs.predictions(deployed, artifact, test)
    formatted = artifact.source.workload().with_precision(artifact.precision)
    metrics: dict[str, Any] = {
        "schema": SCHEMA,
        "asked": {"data": config.data, "device": config.device, **config.budget.limits()},
        "config": asdict(config),
        "environment": read_json(folder / "env.json") if (folder / "env.json").is_file() else {},
        "warnings": cautions(rows, found.data),
        "deployed": deployed.name,
        "kept": all(value <= 0 for value in excess.values()),
        "excess": excess,
        "final": {
            **final,
            **_on_test(predictions, test),
            "test_images": len(test),
            "test_differing_from_pytorch": differing(artifact, predictions, test),
        },
        "rows": rows,
        "classes": list(artifact.preprocessing.class_names),
        "data": _data_facts(found.data),
        "test": _test_facts(found, runs, predictions),
        "architecture": architecture_facts(artifact.arch),
        "memory": memory_facts(formatted, found.context.device),
        "history": list(artifact.history),
        "teacher": found.lesson.facts,
        "trials": dict(Counter(trial.state.name for trial in found.study.get_trials(deepcopy=False))),
        "winner_trial": _winner_trial(found),
    }
    metrics["verdict"] = verdict(metrics)
    return Result(folder, deployed, metrics["kept"], metrics)


@dataclass(frozen=True, slots=True)
class _TestRuns:
    """What each file predicts for the test images; a file that was run is not run again, nor is a copy of it."""

    known: dict[str, Predictions] = field(default_factory=dict)

    def predictions(self, path: Path, artifact: Artifact, test: Split) -> Predictions:
        key = hashlib.sha256(path.read_bytes()).hexdigest()
        if key not in self.known:
            self.known[key] = predict_onnx(path, test, artifact.preprocessing)
        return self.known[key]


def _copy_files(artifact: Artifact, folder: Path) -> Path:
    """Put the last float32 file and the deployed ones into the run's folder; that of ONNX is returned."""
    kept = [record for record in artifact.history if record["kept"]]
    floats = [record for record in kept if record["after"]["precision"] == "fp32"]
    for records, names in ((floats, ["model.onnx"]), (kept, artifact.files.values())):
        source = folder / "stages" / records[-1]["folder"] if records else folder / "winner"
        for name in names:
            write_bytes(folder / name, (source / name).read_bytes())
    artifact.save(folder)
    return folder / str(artifact.files["onnx"])


def _rows(found: Findings, runs: _TestRuns) -> list[dict[str, Any]]:
    rows = []
    if found.lesson.teacher is not None:
        rows.append(_teacher_row(found))
    test, device = found.context.data.test, found.context.device
    rows.append({**_row("winner", found.folder / "winner", test, runs, device), "role": "winner"})
    for record in found.artifact.history:
        label = _LABELS.get(record["stage"], record["stage"])
        row = _row(label, found.folder / "stages" / record["folder"], test, runs, device)
        rows.append({**row, "role": "stage", "why_undone": record["why_undone"]})
    next(row for row in reversed(rows) if not row.get("why_undone"))["deployed"] = True
    for row in rows:  # what an ONNX file stores like any other weight is seen in the coded file
        if row["role"] == "stage" and (row["weight_form"] or row["label"] == Encode.name):
            row["note"] = "deployed, " * row.get("deployed", False) + _coded(row)
    if found.baseline is not None:
        kept = [record for record in found.baseline.history if record["kept"]]
        home = found.folder / "baseline"
        place = home / "stages" / kept[-1]["folder"] if kept else home / "trained"
        base = found.data.resized(*found.baseline.preprocessing.sizes[-1])
        row = _row(found.config.baseline, place, base.test, runs, device)
        note = "preset, same recipe and training time"
        if found.config.init is not None:
            note = "preset from random weights, same training time"
        rows.append({**row, "role": "baseline", "note": note})
    return rows


def _coded(row: Mapping[str, Any]) -> str:
    """
    >>> _coded({"coded_bytes": 1000, "sizes": {"gzip": 3000, "xz": 2000}})
    'coded 1,000 bytes (gzip -9: 3,000, xz -9: 2,000)'
    """
    others = ", ".join(f"{name} -9: {row['sizes'][name]:,}" for name in ("gzip", "xz")) if "sizes" in row else ""
    return f"coded {row['coded_bytes']:,} bytes" + (f" ({others})" if others else "")


def _row(label: str, folder: Path, test: Split, runs: _TestRuns, device: Device) -> dict[str, Any]:
    artifact = Artifact.load(folder)
    predictions = runs.predictions(folder / artifact.files["onnx"], artifact, test)
    estimated = estimated_latency(artifact.source.workload().with_precision(artifact.precision), device)
    return {"label": label, **artifact.metrics, **estimated, **_on_test(predictions, test)}


def _teacher_row(found: Findings) -> dict[str, Any]:
    """The teacher's facts; its file, where there is one, was timed on this machine."""
    facts, test = found.lesson.facts, found.data.test
    assert found.lesson.teacher is not None
    own = Path(found.config.teacher)
    path = own if own.suffix == ".onnx" else found.folder / "teacher" / "model.onnx"
    row = {"label": "teacher", "role": "teacher", **facts, "note": facts["name"]}
    if "latency_ms" in facts:
        row["latency_source"] = "measured" if found.context.measured else "measured here"
    if "macs" in facts and path.is_file():
        row.update(estimated_latency(read_onnx(path), found.context.device))
    right = teacher_accuracy(found.lesson.teacher, test)
    low, high = interval_of(right, len(test))
    return {**row, "test_accuracy": right, "test_accuracy_low": low, "test_accuracy_high": high}


def _on_test(predictions: Predictions, test: Split) -> dict[str, float]:
    right = accuracy(predictions, test)
    low, high = interval_of(right, len(test))
    return {
        "test_accuracy": right,
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "test_balanced_accuracy": balanced_accuracy(predictions, test),
    }


def _data_facts(data: Dataset) -> dict[str, Any]:
    splits = {"train": data.train, "val": data.val, "test": data.test}
    return {
        "name": data.name,
        "input_shape": list(data.preprocessing.input_shape),
        "images": {name: len(split) for name, split in splits.items()},
        "class_counts": {name: class_counts(split.labels, data.num_classes) for name, split in splits.items()},
        "facts": dict(data.facts),
    }


def _test_facts(found: Findings, runs: _TestRuns, predictions: Predictions) -> dict[str, Any]:
    """The deployed file's classes, and what flipped against the last network before any lossy stage."""
    test = found.context.data.test
    label, place = "winner", found.folder / "winner"
    for record in found.artifact.history:
        if STAGES[record["stage"]].lossy:
            break
        if record["kept"]:
            label, place = _LABELS.get(record["stage"], record["stage"]), found.folder / "stages" / record["folder"]
    reference = Artifact.load(place)
    before = runs.predictions(place / reference.files["onnx"], reference, test)
    flipped = flips(before, predictions, test.labels)
    names = found.data.test_names
    flipped["examples"] = [{**e, "file": names[e["index"]]} if names else e for e in flipped["examples"]]
    return {
        **class_facts(predictions, test.labels, found.data.num_classes),
        "flips": {"reference": label, **flipped},
    }


def _winner_trial(found: Findings) -> int | None:
    """The number of the trial that became the winner."""
    chosen = Artifact.load(found.folder / "winner").source
    return next((t.number for t in ranked_trials(found.study) if candidate(found.study, t) == chosen), None)


def verdict(metrics: Mapping[str, Any]) -> str:
    """One line: which file, whether the budget was kept, and that it was run."""
    final = metrics["final"]
    limits = {name: limit for name, limit in metrics["asked"].items() if name in metrics["excess"]}
    sources = {"latency_ms": final["latency_source"]}
    values = guaranteed(final)
    shown = ", ".join(
        f"{name} {values[name]:.4g} of {limit:.4g} ({sources.get(name, 'planned')})" for name, limit in limits.items()
    )
    state = "no limit was given" if not limits else f"budget {'kept' if metrics['kept'] else 'BROKEN'}: {shown}"
    return (
        f"{metrics['deployed']} is deployed ({final['file_bytes']} bytes); {state}; run on {final['test_images']} "
        f"test images in ONNX Runtime: accuracy {final['test_accuracy']:.2%}, "
        f"{final['test_differing_from_pytorch']} predictions differ from PyTorch"
    )


def table(metrics: Mapping[str, Any]) -> str:
    """The networks of a run, one a line.

    >>> print(table({"rows": [{"label": "winner", "val_accuracy": 0.5, "params": 1000}]}).splitlines()[1][:15])
    winner  50.00 %
    """
    lines = [("", *COLUMNS), *(cells(row) for row in metrics["rows"])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i in (0, len(widths) - 1) else cell.rjust(width)
                  for i, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    )  # fmt: skip


def trials_csv(study: optuna.Study) -> str:
    """One line a trial: number, state, values, why or cause, costs, parameters."""
    trials = study.trials
    costs = sorted({name for t in trials for name in t.user_attrs.get(COST, {})})
    names = list(dict.fromkeys(name for t in trials for name in t.params))
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["number", "state", "values", "why", *costs, *names])
    for t in trials:
        why = t.user_attrs.get(WHY) or t.user_attrs.get(CAUSE, "")
        values = " ".join(f"{value:.6g}" for value in t.values or [])
        found = t.user_attrs.get(COST, {})
        writer.writerow(
            [
                t.number,
                t.state.name,
                values,
                why,
                *(found.get(c, "") for c in costs),
                *(t.params.get(n, "") for n in names),
            ]
        )
    return buffer.getvalue()


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the table as text, in the order of COLUMNS after its label."""

    def show(name: str, form: str) -> str:
        return format(row[name], form) if row.get(name) is not None else "-"

    latency = "-"
    if row.get("latency_ms") is not None:
        latency = f"{row['latency_ms']:.3f} ({row['latency_low_ms']:.3f}-{row['latency_high_ms']:.3f})"
    note = row.get("note", "deployed" if row.get("deployed") else "")
    if row.get("why_undone"):
        note = f"undone: {row['why_undone']}"
    return (
        row["label"],
        f"{100 * row['val_accuracy']:.2f} %",
        f"{100 * row['test_accuracy']:.2f} %" if "test_accuracy" in row else "-",
        show("params", ","),
        show("macs", ","),
        show("file_bytes", ","),
        latency,
        show("peak_ram_bytes", ","),
        note,
    )
