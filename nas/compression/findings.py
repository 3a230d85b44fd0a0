"""The results of a compression: the files, run on the test images, and metrics.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from compress.stages.acceptance import latency_upper_bound, points_lost
from compress.stages.accuracy_change import AccuracyChange, confidence_on
from compress.stages.attempts import Home
from compress.stages.deployed_file import file_metrics
from hw_profiles.budget import violations
from hw_profiles.latency.energy import energy_upper_bound_mj
from nas.compression.job import CompressJob
from nas.compression.plan_runs import Nearest, PlanRun
from nas.report.compression_page import COMPRESSION, COMPRESSION_SCHEMA
from nas.results.collect import LIMITS, Result, limit_text, limited_values, points_text, quantity_text
from nas.results.prediction_statistics import interval_of
from nas.results.waterfall import waterfall

PLAN_FILE = "plan.toml"
_OF_A_PLAN = ("coded_bytes", "file_bytes", "val_accuracy", "latency_ms", "peak_ram_bytes", "flash_bytes")


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
            "judged_by": f"the one-sided {100 * asked:.0f}% upper confidence bound",
        },
        "asked": {"data": job.data_name, "device": settings.device, **settings.budget.limits()},
        "excess": excess,
        "final": final,
        "reference": dict(found.reference.metrics),
        "waterfall": waterfall(found.reference.metrics, best.home.artifact.history),
        "plans": [_plan_facts(run, job) for run in (best, *found.nearest.others)],
        "nearest": _nearest(found),
        "config": asdict(settings),
        "environment": read_json(folder / "env.json") if (folder / "env.json").is_file() else {},
        "images": {
            **{name: len(getattr(context.data, name)) for name in ("train", "val", "test")},
            "search": len(job.search_data.val) if job.is_searched else 0,
        },
        "classes": list(job.data.preprocessing.class_names),
        "warnings": [
            *job.notes,
            *_too_few_images(promise, settings.max_accuracy_drop, confidence),
            *_chosen_by_the_judges(job),
        ],
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


def _plan_facts(run: PlanRun, job: CompressJob) -> dict[str, Any]:
    latency_upper_ms = latency_upper_bound(run.home.metrics)
    return {
        "label": run.label,
        "stages": list(run.plan.names),
        "within_tolerance": run.promised,
        **{name: run.home.metrics[name] for name in _OF_A_PLAN},
        "latency_upper_ms": latency_upper_ms,
        "energy_mj": energy_upper_bound_mj(job.device, latency_upper_ms),
    }


def _nearest(found: Findings) -> dict[str, Any] | None:
    """The most accurate file that keeps the size and all limits, where none within the tolerance does."""
    nearest = found.nearest.within_limits
    if nearest is None:
        return None
    lost = points_lost(found.reference.metrics, nearest.home.metrics)
    return {**_plan_facts(nearest, found.job), "points_lost": lost}


def _too_few_images(change: AccuracyChange, allowed: float, confidence: float) -> list[str]:
    asked = confidence_on(change.images, allowed, confidence)
    if change.upper(confidence) <= allowed or asked == confidence:
        return []
    return [
        f"With only {change.images} validation images, a drop of at most {points_text(allowed)} cannot be shown at "
        f"{100 * confidence:g}% confidence (upper bound: {change.upper(confidence):.2f} points), so the upper bound at "
        f"{100 * asked:.0f}% confidence was used."
    ]


def _chosen_by_the_judges(job: CompressJob) -> list[str]:
    if not job.is_searched or job.search_data.val is not job.data.val:
        return []
    return [
        f"The {len(job.data.val)} validation images are too few to split: the same images selected the plan and "
        "measured its accuracy drop, which is therefore probably underestimated."
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
    if not (metrics["target_met"] and metrics["budget_met"]):
        parts.append(_both_sides(metrics))
    parts.append(
        f"test accuracy ({metrics['test_images']:,} images, ONNX Runtime): {metrics['test_accuracy']:.2%}, original "
        f"model: {metrics['reference_test_accuracy']:.2%}"
    )
    return "; ".join(parts)


def _both_sides(metrics: Mapping[str, Any]) -> str:
    """The closest results: within the accuracy limit, and with all other limits met."""
    missed = {name: metrics["asked"][name] for name, excess in metrics["excess"].items() if excess > 0}
    if not metrics["target_met"]:
        missed["coded_bytes"] = metrics["target_bytes"]
    within = {**limited_values(metrics["final"]), "coded_bytes": metrics["coded_bytes"]}
    limit = points_text(metrics["promise"]["allowed"])
    asked = f"{_listed(missed, missed)} NOT reached. Within the accuracy-drop limit ({limit}), the best file has "
    asked += _listed(missed, within)
    nearest = metrics["nearest"]
    if nearest is not None:
        values, lost = _listed(missed, _values(nearest)), nearest["points_lost"]
        return f"{asked}; a file with {values} loses {lost:.2f} percentage points"
    least = {name: min(_values(plan)[name] for plan in metrics["plans"]) for name in missed}
    return f"{asked}; no plan reached the target, the lowest values are {_listed(least, least)}"


def _values(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a plan that are compared with the limits."""
    return {**plan, "latency_ms": plan["latency_upper_ms"]}


def _listed(names: Iterable[str], values: Mapping[str, Any]) -> str:
    """The values as text.

    >>> _listed(["coded_bytes", "latency_ms"], {"coded_bytes": 1000, "latency_ms": 0.123456})
    'compressed size 1,000 bytes, latency 0.1235 ms'
    """
    return ", ".join(
        f"compressed size {values[name]:,.0f} bytes"
        if name == "coded_bytes"
        else f"{LIMITS[name][0]} {quantity_text(name, values[name], 4)}"
        for name in names
        if values.get(name) is not None
    )
