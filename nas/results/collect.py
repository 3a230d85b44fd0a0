"""Collects the results of a run: every network on the test images, the verdict, the deployed file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna

from compress.atomic_files import read_json, write_bytes
from compress.data.dataset import Dataset, Split
from compress.fnz.encode_stage import Encode
from compress.networks.artifact import Artifact
from compress.networks.onnx_export import differing, predict_onnx
from compress.progress import progress
from compress.stage_interface import Context
from compress.stages.acceptance import latency_upper_bound, upper_bounds
from compress.stages.deployed_file import file_metrics
from compress.stages.stage_order import STAGES
from compress.training.evaluation import accuracy, balanced_accuracy
from compress.training.teachers import teacher_accuracy
from hw_profiles.budget import Budget, violations
from hw_profiles.devices.c99_program import deploys_c99
from hw_profiles.devices.device import Device
from hw_profiles.latency.energy import energy, energy_upper_bound_mj
from hw_profiles.onnx_io.reader import read_onnx
from nas.config import Config
from nas.engine.search import candidate, ranked_trials
from nas.results.c99_project import FOLDER as C99_FOLDER
from nas.results.c99_project import IMAGES as C99_IMAGES
from nas.results.c99_project import c99_project, measured_values, verification_text
from nas.results.network_facts import architecture_facts, estimated_latency, memory_facts
from nas.results.prediction_statistics import Predictions, class_counts, class_facts, flips, interval_of
from nas.results.run_warnings import failed_candidates, lost_on_test, missing_weights, run_warnings
from nas.results.search_gain import search_gain
from nas.results.teacher_info import TeacherInfo
from nas.results.twice_the_time import gain_of_twice_the_time

METRICS_SCHEMA = 4
_LABELS = {"distill": "distilled", "prune": "pruned", "int8": "int8"}
_LATENCY = ("latency_ms", "latency_low_ms", "latency_high_ms", "latency_source", "latency_raw_ms")


@dataclass(frozen=True, slots=True)
class Result:
    """A finished run: its folder, the path of the final model, whether the budget is met, and its metrics (the content
    of metrics.json)."""

    folder: Path
    deployed: Path
    budget_met: bool
    metrics: Mapping[str, Any]

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The networks of the run, or the stages of a compression (see :func:`nas.records`)."""
        rows: Sequence[Mapping[str, Any]] = self.metrics["waterfall" if "waterfall" in self.metrics else "rows"]
        return rows


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Findings:
    """What the phases of a run made; ``data`` has the size in which it was read, ``context`` the artifact's;
    ``asked`` are all limits; ``seconds`` is the time of the whole run so far, earlier starts included; ``baseline`` is
    a preset by name; ``plan`` is what was planned where the time was limited."""

    config: Config
    asked: Budget
    folder: Path
    data: Dataset
    teacher_info: TeacherInfo
    study: optuna.Study
    artifact: Artifact
    baseline: tuple[str, Artifact] | None
    context: Context
    seconds: float
    plan: Mapping[str, Any] | None = None


def collect(found: Findings) -> Result:
    """Run every file that was made on the test images, which no network has met before, and judge the last accepted
    one."""
    config, folder, artifact, test = found.config, found.folder, found.artifact, found.context.data.test
    runs = _TestRuns()
    rows = _rows(found, runs)
    deployed = _copy_files(artifact, folder)
    final = file_metrics(artifact, deployed, found.context)
    project = _c99_project(found, deployed)
    final |= measured_values(project)
    shown = (*_LATENCY, "peak_ram_bytes", "flash_bytes")
    next(row for row in rows if row.get("deployed")).update({name: final[name] for name in shown})
    final |= energy_facts(final, found.context.device)
    excess = violations(limited_values(final), found.asked.limits())
    predictions = runs.predictions(deployed, artifact, test)
    formatted = artifact.source.workload().with_precision(artifact.precision)
    on_test = _on_test(predictions, test)
    init = _kept(folder / "init.json")
    metrics: dict[str, Any] = {
        "schema": METRICS_SCHEMA,
        "deployed": deployed.name,
        "test_accuracy": on_test["test_accuracy"],
        "latency_ms": final["latency_ms"],
        "peak_ram_bytes": final["peak_ram_bytes"],
        "flash_bytes": final["flash_bytes"],
        "budget_met": all(value <= 0 for value in excess.values()),
        "seconds": found.seconds,
        "asked": {"data": config.data, "device": config.device, **found.asked.limits()},
        "threads": found.context.device.threads,
        "config": asdict(config),
        "environment": _kept(folder / "env.json"),
        "init": init,
        "warnings": [
            *missing_weights(init),
            *failed_candidates(found.study),
            *run_warnings(rows, found.data),
            *lost_on_test(rows, config.max_accuracy_drop),
        ],
        "excess": excess,
        "c99": project,
        "final": {
            **final,
            **on_test,
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
        "teacher": found.teacher_info.facts,
        "plan": _plan_facts(found, rows),
        "search": search_gain(found.study, len(found.data.val)),
        "trials": dict(Counter(trial.state.name for trial in found.study.get_trials(deepcopy=False))),
        "winner_trial": _winner_trial(found),
    }
    metrics["verdict"] = verdict(metrics)
    return Result(folder, deployed, metrics["budget_met"], metrics)


def _c99_project(found: Findings, deployed: Path) -> dict[str, Any]:
    """Of a microcontroller's run the program, which is what is shipped; nothing of any other run."""
    device, test = found.context.device, found.context.data.test
    if not deploys_c99(device):
        return {}
    with progress("C99 program"):
        images = found.artifact.preprocessing.tensor(test.images[:C99_IMAGES])
        return c99_project(deployed, found.folder / C99_FOLDER, images, device)


@dataclass(frozen=True, slots=True)
class _TestRuns:
    """What each file predicts for the test images; a file that was run is not run again, nor is a copy of it."""

    known: dict[str, Predictions] = field(default_factory=dict)

    def predictions(self, path: Path, artifact: Artifact, test: Split) -> Predictions:
        key = hashlib.sha256(path.read_bytes()).hexdigest()
        if key not in self.known:
            self.known[key] = predict_onnx(path, test, artifact.preprocessing)
        return self.known[key]


def _kept(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _copy_files(artifact: Artifact, folder: Path) -> Path:
    """Put the last float32 file and the deployed ones into the run's folder; that of ONNX is returned."""
    accepted = [record for record in artifact.history if record["accepted"]]
    floats = [record for record in accepted if record["after"]["precision"] == "fp32"]
    for records, names in ((floats, ["model.onnx"]), (accepted, artifact.files.values())):
        source = folder / "stages" / records[-1]["folder"] if records else folder / "winner"
        for name in names:
            write_bytes(folder / name, (source / name).read_bytes())
    artifact.save(folder)
    return folder / str(artifact.files["onnx"])


def _rows(found: Findings, runs: _TestRuns) -> list[dict[str, Any]]:
    rows = []
    if found.teacher_info.teacher is not None:
        rows.append(_teacher_row(found))
    test, device = found.context.data.test, found.context.device
    rows.append({**_row(SELECTED, found.folder / "winner", test, runs, device), "role": "winner"})
    for record in found.artifact.history:
        label = _LABELS.get(record["stage"], record["stage"])
        row = _row(label, found.folder / "stages" / record["folder"], test, runs, device)
        rows.append({**row, "role": "stage", "rejection_reason": record["rejection_reason"]})
    next(row for row in reversed(rows) if not row.get("rejection_reason"))["deployed"] = True
    for row in rows:  # what an ONNX file stores like any other weight is seen in the coded file
        if row["role"] == "stage" and (row["weight_form"] or row["label"] == Encode.name):
            row["note"] = "final model, " * row.get("deployed", False) + _coded(row)
    if found.baseline is not None:
        name, baseline = found.baseline
        accepted = [record for record in baseline.history if record["accepted"]]
        home = found.folder / "baseline"
        place = home / "stages" / accepted[-1]["folder"] if accepted else home / "trained"
        base = found.data.resized(*baseline.preprocessing.sizes[-1])
        row = _row(name, place, base.test, runs, device)
        note = "preset, same training recipe and time"
        if found.config.init is not None:
            note = "preset trained from scratch, same time"
        rows.append({**row, "role": "baseline", "note": note})
    return rows


def _coded(row: Mapping[str, Any]) -> str:
    """
    >>> _coded({"coded_bytes": 1000, "sizes": {"gzip": 3000, "xz": 2000}})
    'compressed to 1,000 bytes (gzip -9: 3,000, xz -9: 2,000)'
    """
    others = ", ".join(f"{name} -9: {row['sizes'][name]:,}" for name in ("gzip", "xz")) if "sizes" in row else ""
    return f"compressed to {row['coded_bytes']:,} bytes" + (f" ({others})" if others else "")


def _row(label: str, folder: Path, test: Split, runs: _TestRuns, device: Device) -> dict[str, Any]:
    artifact = Artifact.load(folder)
    predictions = runs.predictions(folder / artifact.files["onnx"], artifact, test)
    estimated = estimated_latency(artifact.source.workload().with_precision(artifact.precision), device)
    return {"label": label, **artifact.metrics, **estimated, **_on_test(predictions, test)}


def _teacher_row(found: Findings) -> dict[str, Any]:
    """The teacher's facts; its file, where there is one, was timed on this machine."""
    facts, test = found.teacher_info.facts, found.data.test
    assert found.teacher_info.teacher is not None
    own = Path(found.config.teacher)
    path = own if own.suffix == ".onnx" else found.folder / "teacher" / "model.onnx"
    row = {"label": "teacher", "role": "teacher", **facts, "note": facts["name"]}
    if "latency_ms" in facts:
        row["latency_source"] = "measured" if found.context.measured else "measured on this machine"
    if "macs" in facts and path.is_file():
        row.update(estimated_latency(read_onnx(path), found.context.device))
    right = teacher_accuracy(found.teacher_info.teacher, test)
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
    label, place = SELECTED, found.folder / "winner"
    for record in found.artifact.history:
        if STAGES[record["stage"]].lossy:
            break
        if record["accepted"]:
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


def _plan_facts(found: Findings, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The plan where there was one, and what came of it."""
    if found.plan is None:
        return None
    winner = next(row for row in rows if row["role"] == "winner")
    training, number = winner["training"], _winner_trial(found)
    trial = next(trial for trial in found.study.get_trials(deepcopy=False) if trial.number == number)
    images = min(len(found.data.val), len(found.data.test))
    early = (found.plan["candidate_seconds"], trial.values[0])
    return {
        **found.plan,
        "ran_epochs": training["epochs"],
        "ran_train_seconds": training["seconds"],
        "twice_the_time_points": gain_of_twice_the_time(early, (training["seconds"], winner["test_accuracy"]), images),
    }


def _winner_trial(found: Findings) -> int | None:
    """The number of the trial that became the winner."""
    chosen = Artifact.load(found.folder / "winner").source
    return next((t.number for t in ranked_trials(found.study) if candidate(found.study, t) == chosen), None)


def energy_facts(final: Mapping[str, Any], device: Device) -> dict[str, float | None]:
    """``energy_mj`` that is compared with a limit, and what is expected with its 90% interval; None where the device
    states no power.

    >>> from hw_profiles import load_device
    >>> latency = {"latency_ms": 10.0, "latency_low_ms": 5.0, "latency_high_ms": 20.0, "latency_source": "estimated"}
    >>> found = energy_facts(latency, load_device("stm32l4r5"))
    >>> found["energy_low_mj"] < found["expected_energy_mj"] < found["energy_mj"] < found["energy_high_mj"]
    True
    """
    expected = energy(device, final["latency_ms"], final["latency_low_ms"], final["latency_high_ms"])
    return {
        "energy_mj": energy_upper_bound_mj(device, latency_upper_bound(final)),
        "expected_energy_mj": None if expected is None else expected.mj,
        "energy_low_mj": None if expected is None else expected.low_mj,
        "energy_high_mj": None if expected is None else expected.high_mj,
    }


SELECTED = "selected network"
"""The label of the network that the search chose, as it was trained; its ``role`` is "winner"."""


def value_sources(final: Mapping[str, Any]) -> dict[str, str]:
    """Where each value that is compared with a limit comes from.

    >>> value_sources({"latency_source": "measured"})
    {'latency_ms': 'measured', 'peak_ram_bytes': 'computed', 'flash_bytes': 'computed'}
    """
    memory = ("compiled", "compiled") if final.get("compiled") else ("computed", "computed")
    latency = {"latency_ms": final["latency_source"], "peak_ram_bytes": memory[0], "flash_bytes": memory[1]}
    return latency if final.get("energy_mj") is None else {**latency, "energy_mj": "latency × power"}


def limited_values(final: Mapping[str, Any]) -> dict[str, float | None]:
    """What is compared with the limits, energy included."""
    return {**upper_bounds(final), "energy_mj": final.get("energy_mj")}


LIMITS = {
    "latency_ms": ("latency", "ms"),
    "peak_ram_bytes": ("peak RAM", "bytes"),
    "flash_bytes": ("weight size", "bytes"),
    "energy_mj": ("energy", "mJ"),
}
"""What a person calls the costs that can be limited, and their units."""
_UPPER_BOUNDS = ("latency_ms", "energy_mj")  # these are compared by the upper end of an interval


def quantity_text(name: str, value: float | None, digits: int = 3) -> str:
    """A cost with its unit.

    >>> quantity_text("latency_ms", 0.042971), quantity_text("flash_bytes", 79840), quantity_text("energy_mj", None)
    ('0.043 ms', '79,840 bytes', '–')
    """
    if value is None:
        return "–"
    unit = LIMITS[name][1]
    return f"{value:,.0f} bytes" if unit == "bytes" else f"{value:,.{digits}g} {unit}"


def compared_text(name: str, value: float | None, limit: float) -> str:
    """The value that is compared with a limit, with more digits if the two are nearly equal.

    >>> compared_text("latency_ms", 0.042971, 0.15), compared_text("flash_bytes", 79840, 100_000)
    ('at most 0.043 ms', '79,840 bytes')
    """
    near = value is not None and f"{value:.3g}" == f"{limit:.3g}"
    bound = "at most " if name in _UPPER_BOUNDS else ""
    return f"{bound}{quantity_text(name, value, 5 if near else 3)}"


def limit_text(name: str, value: float | None, limit: float, source: str = "") -> str:
    """A cost beside its limit.

    >>> limit_text("latency_ms", 0.042971, 0.15, "measured")
    'measured latency at most 0.043 ms (90% upper bound; limit: 0.15 ms)'
    >>> limit_text("flash_bytes", 79840, 100_000)
    'weight size 79,840 bytes (limit: 100,000 bytes)'
    """
    shown, bound = compared_text(name, value, limit), "90% upper bound; " if name in _UPPER_BOUNDS else ""
    return f"{source} {LIMITS[name][0]} {shown} ({bound}limit: {quantity_text(name, limit, 6)})".lstrip()


def points_text(points: float) -> str:
    """
    >>> points_text(1.0), points_text(0.5)
    ('1 percentage point', '0.5 percentage points')
    """
    return f"{points:g} percentage point{'' if points == 1 else 's'}"


def verdict(metrics: Mapping[str, Any]) -> str:
    """One line: the file, its test accuracy, and whether the limits are met."""
    final, sources, values = metrics["final"], value_sources(metrics["final"]), limited_values(metrics["final"])
    limits = {name: limit for name, limit in metrics["asked"].items() if name in metrics["excess"]}
    shown = ", ".join(limit_text(name, values[name], limit, sources[name]) for name, limit in limits.items())
    met = "all limits met" if metrics["budget_met"] else "limits NOT met"
    state = f"{met}: {shown}" if limits else "no limits were set"
    differing, images = final["test_differing_from_pytorch"], final["test_images"]
    same = (
        f"{differing} of {images:,} predictions differ{'s' * (differing == 1)} from those in PyTorch"
        if differing
        else "same predictions as in PyTorch"
    )
    program = f"; {verification_text(metrics['c99'])}" if metrics.get("c99") else ""
    return (
        f"{metrics['deployed']} ({final['file_bytes'] / 1000:,.1f} kB): test accuracy {final['test_accuracy']:.2%} on "
        f"{images:,} images (evaluated with ONNX Runtime; {same}); {state}{program}"
    )
