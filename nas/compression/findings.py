"""The results of a compression: the files, run on the test images, and metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.atomic_files import read_json, write_bytes, write_text
from compress.data.dataset import Split
from compress.fnz import decode_onnx, encode_onnx
from compress.fnz.encode_stage import FILE
from compress.networks.onnx_export import predict_onnx
from compress.stages.acceptance import latency_upper_bound
from compress.stages.accuracy_change import AccuracyChange, confidence_on
from compress.stages.attempts import Home
from compress.stages.deployed_file import file_metrics
from hw_profiles.budget import violations
from hw_profiles.latency.energy import energy_upper_bound_mj
from nas.compression.job import CompressJob
from nas.compression.plan_runs import Nearest, PlanRun
from nas.report.compression_page import COMPRESSION, COMPRESSION_SCHEMA
from nas.results.collect import Result, limit_text, limited_values, points_text
from nas.results.prediction_statistics import interval_of
from nas.results.waterfall import waterfall

PLAN_FILE = "plan.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What a compression made, and how many seconds it took, earlier starts included."""

    job: CompressJob
    folder: Path
    reference: Home
    nearest: Nearest
    seconds: float


def collect_compression(found: Findings) -> Result:
    """Write the files, run the given network and the deployed file on the test images, and state what came of it."""
    job, best, folder = found.job, found.nearest.best, found.folder
    context, settings = job.context(), job.settings
    deployed = _write_files(best, folder)
    final = file_metrics(best.home.artifact, deployed, context)
    final["energy_mj"] = energy_upper_bound_mj(job.device, latency_upper_bound(final))
    coded = (folder / FILE).stat().st_size
    excess = violations(limited_values(final), settings.budget.limits())
    promise = _change(found.reference, deployed, best, context.data.val)
    test, confidence = context.data.test, settings.confidence
    asked = confidence_on(promise.images, settings.max_accuracy_drop, confidence)
    metrics: dict[str, Any] = {
        "schema": COMPRESSION_SCHEMA,
        "kind": COMPRESSION,
        "deployed": deployed.name,
        "coded": FILE,
        **_on_test(found.reference, deployed, best, test, confidence),
        "latency_ms": final["latency_ms"],
        "peak_ram_bytes": final["peak_ram_bytes"],
        "flash_bytes": final["weight_bytes"],
        "file_bytes": final["file_bytes"],
        "coded_bytes": coded,
        "budget_met": all(value <= 0 for value in excess.values()),
        "target_bytes": settings.target_bytes,
        "target_met": settings.target_bytes is None or coded <= settings.target_bytes,
        "seconds": found.seconds,
        "promise": {
            "allowed": settings.max_accuracy_drop,
            **promise.to_dict(confidence),
            "judged_by": f"the upper bound at {100 * asked:g}% confidence"
            if asked == confidence
            else "the point estimate",
        },
        "asked": {"data": job.data_name, "device": settings.device, **settings.budget.limits()},
        "excess": excess,
        "final": final,
        "reference": dict(found.reference.metrics),
        "waterfall": waterfall(found.reference.metrics, best.home.artifact.history),
        "plans": [_plan_facts(run) for run in (best, *found.nearest.others)],
        "nearest": _nearest(found.nearest, found.reference),
        "config": asdict(settings),
        "environment": read_json(folder / "env.json") if (folder / "env.json").is_file() else {},
        "images": {name: len(getattr(context.data, name)) for name in ("train", "val", "test")},
        "classes": list(job.data.preprocessing.class_names),
        "warnings": [*job.notes, *_too_few_images(promise, settings.max_accuracy_drop, confidence)],
    }
    metrics["verdict"] = compression_verdict(metrics)
    return Result(folder, deployed, metrics["budget_met"] and metrics["target_met"], metrics)


def _write_files(best: PlanRun, folder: Path) -> Path:
    """The ONNX file, its coded form, which is decoded again, the artifact, and the plan."""
    data = best.home.file.read_bytes()
    coded = encode_onnx(data)
    if decode_onnx(coded) != data:
        raise RuntimeError(f"{FILE} does not decode to the ONNX file byte by byte")
    deployed = folder / best.home.file.name
    write_bytes(deployed, data)
    write_bytes(folder / FILE, coded)
    best.home.artifact.save(folder)
    plan = best.applied()
    if plan is None:
        (folder / PLAN_FILE).unlink(missing_ok=True)
    else:
        write_text(folder / PLAN_FILE, plan.to_toml())
    return deployed


def _right(path: Path, home: Home, split: Split) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = predict_onnx(path, split, home.artifact.preprocessing) == split.labels
    return right


def _change(reference: Home, deployed: Path, best: PlanRun, split: Split) -> AccuracyChange:
    return AccuracyChange.between(_right(reference.file, reference, split), _right(deployed, best.home, split))


def _on_test(reference: Home, deployed: Path, best: PlanRun, test: Split, confidence: float) -> dict[str, Any]:
    before, after = _right(reference.file, reference, test), _right(deployed, best.home, test)
    low, high = interval_of(float(after.mean()), len(test))
    return {
        "test_accuracy": float(after.mean()),
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "test_images": len(test),
        "reference_test_accuracy": float(before.mean()),
        "test_change": AccuracyChange.between(before, after).to_dict(confidence),
    }


def _plan_facts(run: PlanRun) -> dict[str, Any]:
    return {
        "label": run.label,
        "stages": list(run.plan.names),
        "within_tolerance": run.promised,
        "coded_bytes": run.coded_bytes,
        "file_bytes": run.home.metrics["file_bytes"],
        "val_accuracy": run.home.metrics["val_accuracy"],
        "latency_ms": run.home.metrics["latency_ms"],
    }


def _nearest(nearest: Nearest, reference: Home) -> dict[str, Any] | None:
    """The most accurate file of the asked size, where none within the tolerance has it."""
    found = nearest.at_the_size
    if found is None:
        return None
    lost = 100 * (reference.metrics["val_accuracy"] - found.home.metrics["val_accuracy"])
    return {**_plan_facts(found), "points_lost": lost}


def _too_few_images(change: AccuracyChange, allowed: float, confidence: float) -> list[str]:
    if change.upper(confidence) <= allowed or confidence_on(change.images, allowed, confidence) == confidence:
        return []
    return [
        f"With only {change.images} validation images, a drop of at most {points_text(allowed)} cannot be shown at "
        f"{100 * confidence:g}% confidence (upper bound: {change.upper(confidence):.2f} points), so the point estimate "
        "was used."
    ]


def compression_verdict(metrics: Mapping[str, Any]) -> str:
    """One line: which file, how much smaller it is, whether the promise, the size and the limits hold."""
    promise, final = metrics["promise"], metrics["final"]
    times = metrics["reference"]["coded_bytes"] / metrics["coded_bytes"]
    parts = [
        f"{metrics['deployed']}: {final['file_bytes']:,} bytes, {metrics['coded_bytes']:,} compressed ({times:.1f}x "
        "smaller)",
        f"validation accuracy drop {promise['points']:.2f} points (at most {promise['high']:.2f} with "
        f"{100 * promise['confidence']:g}% confidence; limit: {promise['allowed']:g})",
    ]
    limits = {name: limit for name, limit in metrics["asked"].items() if name in metrics["excess"]}
    values = limited_values(final)
    parts.extend(
        f"{limit_text(name, values[name], limit)}{'' if metrics['excess'][name] <= 0 else ' (exceeded)'}"
        for name, limit in limits.items()
    )
    if not metrics["target_met"]:
        parts.append(_both_sides(metrics))
    parts.append(
        f"test accuracy ({metrics['test_images']:,} images, ONNX Runtime): {metrics['test_accuracy']:.2%}, original "
        f"model: {metrics['reference_test_accuracy']:.2%}"
    )
    return "; ".join(parts)


def _both_sides(metrics: Mapping[str, Any]) -> str:
    """What can be held: the smallest file within the tolerance, and the smallest loss at the asked size."""
    nearest, target = metrics["nearest"], metrics["target_bytes"]
    reached = f"target size of {target:,} bytes NOT reached"
    limit = points_text(metrics["promise"]["allowed"])
    within = f"the smallest file within the limit of {limit} has {metrics['coded_bytes']:,} bytes"
    if nearest is None:
        smallest = min(plan["coded_bytes"] for plan in metrics["plans"])
        return f"{reached}: {within}; no plan reached the target, the smallest file has {smallest:,} bytes"
    return f"{reached}: {within}; at {nearest['coded_bytes']:,} bytes the drop is {nearest['points_lost']:.2f} points"
