"""Stages in their order, each kept only if the deployed file is no worse for it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from compress.atomic_files import finish_folder, write_json
from compress.clustering.cluster import Cluster
from compress.distillation.distill import Distill
from compress.fnz import encode_onnx
from compress.fnz.encode_stage import Encode
from compress.networks.artifact import Artifact
from compress.networks.network_source import require_savable
from compress.networks.onnx_export import differing, export_onnx, onnx_bytes, predict_onnx
from compress.progress import Report, progress
from compress.pruning.prune import Prune
from compress.quantization.int8.ptq import Quantize
from compress.quantization.int8.qat import QuantizeAware
from compress.quantization.mixed_precision.mixed_precision import MixedPrecision
from compress.quantization.weight_only.binary import Binarize
from compress.quantization.weight_only.fp16 import Half
from compress.quantization.weight_only.int4 import Int4
from compress.sparsity.sparsify import Sparsify
from compress.stage import Context, Stage
from compress.stages.provenance import ORIGIN, check_origin, config_of, matches, origin_of
from compress.training.evaluation import accuracy
from hw_profiles.budget import Budget, violations
from hw_profiles.latency.estimate import estimate, upper_bound_ms
from hw_profiles.measurement.latency_measurement import compare, measure
from hw_profiles.memory.planner import plan
from hw_profiles.network.tensor_formats import TensorFormat
from hw_profiles.runtimes.fusion import fuse
from search_spaces.arch import Arch

# In the order in which they make sense: architecture, pruning, zeros, then fewer bits in the file, integers, shared
# values, and the coding.
STAGES: dict[str, type[Stage]] = {
    "distill": Distill,
    "prune": Prune,
    "sparsify": Sparsify,
    "fp16": Half,
    "int4": Int4,
    "binary": Binarize,
    "int8": Quantize,
    "qat": QuantizeAware,
    "mixed": MixedPrecision,
    "cluster": Cluster,
    "encode": Encode,
}

_DRIFT = 0.02  # a file run against itself differs by up to so much

ProgressFactory = Callable[[str], AbstractContextManager[Report]]


def run_stages(
    artifact: Artifact,
    stages: Sequence[Stage],
    context: Context,
    folder: Path,
    *,
    home: Path | None = None,
    show: ProgressFactory = progress,
) -> Artifact:
    """Run the stages one after the other, each in ``folder/NN_name``; what is finished there is not run again.

    ``home`` is the folder with the artifact's own file; without one it is written to ``folder/00_start`` first.

    After each stage the file is written, run in ONNX Runtime on the validation images and its latency taken. A stage
    whose file is slower or larger than the one before, unless the budget needs it, or that takes the accuracy more
    than ``max_accuracy_drop`` points below the reference, is undone: its folder stays, its reason stands in the
    history, and the next stage starts from what was there before. The reference is the last artifact before any lossy
    stage. A stage is told how many points are left to lose.

    Raises:
        ValueError: a stage, which is named, cannot be applied to this artifact, the artifact cannot be saved, or the
            folder holds what came of another one, of other options, images, seed, device or budget. What earlier
            stages made stays in their folders and is found again.
    """
    require_savable(artifact.source)
    _check_size(artifact, context)
    if home is None:
        home = folder / "00_start"
        artifact = _started(artifact, home) if (home / "artifact.json").is_file() else deploy(artifact, context, home)
    reference = in_float = artifact
    for number, stage in enumerate(stages, 1):
        place = folder / f"{number:02}_{stage.name}"
        left = context.max_accuracy_drop - _points_lost(reference.metrics, in_float.metrics)
        told = replace(context, max_accuracy_drop=max(0.0, left))
        after = _run_stage(artifact, stage, told, (home, place), show)
        why = rejection_reason(artifact.metrics, after.metrics, reference.metrics, context)
        if stage.lossy and _file(home, artifact) == _file(place, after):
            why = "it changed neither the architecture nor the precision"
        record = {
            "stage": stage.name,
            "config": config_of(stage, place),
            "folder": place.name,
            "before": dict(artifact.metrics),
            "after": dict(after.metrics),
            "kept": why is None,
            "rejection_reason": why,
        }
        kept, home = (after, place) if why is None else (artifact, home)
        artifact = replace(kept, history=(*artifact.history, record))
        if artifact.precision == "fp32":  # what quantization is compared with
            in_float = artifact
        if not stage.lossy:
            reference = artifact
    return artifact


def rejection_reason(
    before: Mapping[str, Any], after: Mapping[str, Any], reference: Mapping[str, Any], context: Context
) -> str | None:
    """The reason to refuse a stage's result, or None.

    A stage that changed neither architecture nor precision, such as training in integers what was in integers, must
    not lose accuracy. Any other must not take more than is allowed. Unless it comes closer to a budget that the earlier
    file breaks, its file must not be larger (its coded file, where weights are stored in other formats); one of another
    architecture must be faster, by 2 % at the upper end of the 90 % interval, and any other must not be slower, by 2 %
    at the lower end.
    """
    if _same_form(before, after):
        lost, allowed = _points_lost(before, after), 0.0
    else:
        lost, allowed = _points_lost(reference, after), context.max_accuracy_drop
        needed = worst_excess(after, context.budget) < worst_excess(before, context.budget)
        dearer = None if needed else _dearer(before, after)
        if dearer:
            return dearer
    if lost > allowed + 1e-9:
        return f"less accurate: {lost:.2f} points of validation accuracy lost, {allowed:.2f} allowed"
    return None


def upper_bounds(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """What is held against the limits."""
    return {
        "latency_ms": latency_upper_bound(metrics),
        "peak_ram_bytes": metrics["peak_ram_bytes"],
        "flash_bytes": metrics["weight_bytes"],
        "energy_mj": None,
    }


def latency_upper_bound(metrics: Mapping[str, Any]) -> float:
    """The latency of a stage's file that is held against the limit."""
    return upper_bound_ms(metrics["latency_ms"], metrics["latency_high_ms"], metrics["latency_source"])


def worst_excess(metrics: Mapping[str, Any], budget: Budget) -> float:
    """How far the limit that is broken most is broken, as a share of it; 0 where all hold."""
    return max([0.0, *violations(upper_bounds(metrics), budget.limits()).values()])


def _same_form(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    same = (after["arch"], after["precision"]) == (before["arch"], before["precision"])
    return same and _stored_alike(before, after)


def _file(folder: Path, artifact: Artifact) -> bytes:
    return (folder / artifact.files["onnx"]).read_bytes()


def _points_lost(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    lost: float = 100 * (before["val_accuracy"] - after["val_accuracy"])
    return lost


def _dearer(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    times, low, high = after["latency_ratio"]
    measured = f"{times:.3f} times as long as before ({low:.3f} to {high:.3f})"
    if low > 1 + _DRIFT:
        return f"slower: {measured}"
    if after["arch"] != before["arch"] and high > 1 - _DRIFT:
        return f"not faster: {measured}"
    # Zeros and shared values take their bytes like any others, until the file is coded.
    size = "file_bytes" if _stored_alike(before, after) else "coded_bytes"
    if after[size] > before[size]:
        return f"larger: {after[size]} bytes{'' if size == 'file_bytes' else ' coded'}, before {before[size]}"
    return None


def _stored_alike(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return bool(after.get("weight_form", "") == before.get("weight_form", ""))


def deploy(artifact: Artifact, context: Context, folder: Path, before: Path | None = None) -> Artifact:
    """Write the artifact and its ONNX file into ``folder``, run the file, and return the artifact with its metrics.

    Metrics and files that it brings, such as what its training took, are kept. With ``before``, a folder like it,
    ``latency_ratio`` says how many times as long the new file takes as the one there.
    """
    require_savable(artifact.source)
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    name = "model.int8.onnx" if artifact.precision == "int8" else "model.onnx"
    export_onnx(artifact, partial / name)
    metrics = {**artifact.metrics, **file_metrics(artifact, partial / name, context)}
    if before is not None:
        metrics["latency_ratio"] = _latency_ratio(metrics, partial / name, Artifact.load(before), before, context)
    done = replace(artifact, files={**artifact.files, "onnx": name}, metrics=metrics)
    done.save(partial)
    finish_folder(partial, folder)
    for checkpoint in folder.glob("checkpoint*.pt"):
        checkpoint.unlink()
    return done


def file_metrics(artifact: Artifact, path: Path, context: Context) -> dict[str, Any]:
    """What a written file is: accuracy on the validation images, bytes, latency, peak RAM, and its distance from
    PyTorch."""
    formatted = artifact.workload()
    kernels = fuse(formatted, context.device.runtime)
    latency = measure(path, context.device) if context.measured else estimate(formatted, kernels, context.device)
    predictions = predict_onnx(path, context.data.val, artifact.preprocessing)
    return {
        "arch": artifact.source.id,
        "precision": artifact.precision,
        "val_accuracy": accuracy(predictions, context.data.val),
        "val_images": len(context.data.val),
        "val_differing_from_pytorch": differing(artifact, predictions, context.data.val),
        "weight_form": _weight_form(artifact),
        "params": artifact.source.workload().params,
        "macs": formatted.macs,
        "file_bytes": path.stat().st_size,
        "coded_bytes": len(encode_onnx(path.read_bytes())),
        "weight_bytes": formatted.weight_bytes,
        "latency_ms": latency.ms,
        "latency_low_ms": latency.low_ms,
        "latency_high_ms": latency.high_ms,
        "latency_source": latency.source,
        "latency_raw_ms": latency.raw_ms,
        "peak_ram_bytes": plan(formatted, kernels).peak_bytes,
    }


def _weight_form(artifact: Artifact) -> str:
    """Eight hexadecimal digits that differ where weights are stored in other formats or computed with in float; empty
    in the usual ones."""
    in_float = sorted(artifact.quantization.in_float) if artifact.quantization else []
    formats = {**_formats_of_file(artifact), **artifact.weight_formats}
    if not formats and not in_float:
        return ""
    named = [*sorted((name, astuple(stored)) for name, stored in formats.items()), *in_float]
    return hashlib.sha256(repr(named).encode()).hexdigest()[:8]


def _formats_of_file(artifact: Artifact) -> dict[str, TensorFormat]:
    """The weights that the file of a network that is no Arch stores neither in float32 nor as 8-bit integers."""
    if isinstance(artifact.source, Arch):
        return {}
    workload = artifact.workload()
    stored = {op.weight: workload.format(op.weight) for op in workload.ops if op.stores_weights}
    return {name: each for name, each in stored.items() if each.bits not in (8, 32)}


def _latency_ratio(
    metrics: Mapping[str, Any], path: Path, earlier: Artifact, folder: Path, context: Context
) -> list[float]:
    if context.measured:
        return list(compare(path, folder / earlier.files["onnx"], context.device))
    ratio = metrics["latency_ms"] / earlier.metrics["latency_ms"]
    return [ratio, ratio, ratio]


def _check_size(artifact: Artifact, context: Context) -> None:
    wanted, given = artifact.source.input_shape, context.data.preprocessing.input_shape
    if wanted != given:
        raise ValueError(f"the data must have the size that the network reads, {wanted}, got {given}: resize them")


def _started(artifact: Artifact, home: Path) -> Artifact:
    """What is there already, if it is the same network."""
    found = Artifact.load(home)
    if onnx_bytes(artifact) != _file(home, found):
        raise ValueError(f"{home.parent}: holds the stages of another network; give another folder")
    return found


def _run_stage(
    artifact: Artifact, stage: Stage, context: Context, folders: tuple[Path, Path], show: ProgressFactory
) -> Artifact:
    """``folders``: where the artifact's file is, and where the stage's shall be."""
    before, folder = folders
    origin = origin_of(stage, context, _file(before, artifact))
    if (folder / "artifact.json").is_file():
        check_origin(origin, folder)
        return Artifact.load(folder)
    partial = folder.with_name(folder.name + ".partial")
    if partial.is_dir() and not matches(origin, partial):
        shutil.rmtree(partial)  # what other options had begun
    partial.mkdir(parents=True, exist_ok=True)
    write_json(partial / ORIGIN, origin)
    with show(stage.name) as report:
        bare = replace(artifact, metrics={}, files={}, history=())
        inside = replace(context, checkpoint=partial / "checkpoint.pt", folder=partial, report=report)
        try:
            after = stage(bare, inside)
        except ValueError as error:
            raise ValueError(f"stage {stage.name} cannot be applied: {error}") from error
    return deploy(after, context, folder, before)
