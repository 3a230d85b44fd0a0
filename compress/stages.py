"""Stages in their order, each kept only if the deployed file is no worse for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from compress.artifact import Artifact
from compress.distill import Distill
from compress.export import differing, export_onnx, predict_onnx
from compress.files import finish_folder
from compress.progress import Report, progress
from compress.prune import Prune
from compress.quantize import Quantize
from compress.stage import Context, Stage
from compress.train import accuracy
from hw_profiles.latency import estimate, measure
from hw_profiles.fusion import fuse
from hw_profiles.memory import plan

# In the order in which they make sense: architecture, then pruning, then precision.
STAGES: dict[str, type[Stage]] = {"distill": Distill, "prune": Prune, "int8": Quantize}

ProgressFactory = Callable[[str], AbstractContextManager[Report]]


def run_stages(
    artifact: Artifact,
    stages: Sequence[Stage],
    context: Context,
    folder: Path,
    *,
    show: ProgressFactory = progress,
) -> Artifact:
    """Run the stages one after the other, each in ``folder/NN_name``; what is finished there is not run again.

    After each stage the file is written, run in ONNX Runtime on the validation images and its latency taken. A stage whose
    file is slower or larger than the one before, or that takes the accuracy more than ``max_accuracy_drop`` points below the
    reference, is undone: its folder stays, its reason stands in the history, and the next stage starts from what was there
    before. The reference is the last artifact before any lossy stage. Given an artifact without metrics, its own file is
    written to ``folder/00_start`` first.

    Raises:
        ValueError: a stage cannot be applied to this artifact.
    """
    if not artifact.metrics:
        artifact = deploy(artifact, context, folder / "00_start")
    reference = artifact
    for number, stage in enumerate(stages, 1):
        after = _run_stage(artifact, stage, context, folder / f"{number:02}_{stage.name}", show)
        why = why_undone(artifact.metrics, after.metrics, reference.metrics, context.max_accuracy_drop)
        record = {
            "stage": stage.name,
            "config": asdict(stage),  # type: ignore[call-overload]
            "folder": f"{number:02}_{stage.name}",
            "before": dict(artifact.metrics),
            "after": dict(after.metrics),
            "kept": why is None,
            "why_undone": why,
        }
        kept = after if why is None else artifact
        artifact = replace(kept, history=(*artifact.history, record))
        if not stage.lossy:
            reference = artifact
    return artifact


def why_undone(
    before: Mapping[str, Any], after: Mapping[str, Any], reference: Mapping[str, Any], max_accuracy_drop: float
) -> str | None:
    """The reason to refuse a stage's result, or None.

    A stage that changed neither architecture nor precision must not lose accuracy. Any other must not be slower, beyond the
    90 % interval of the earlier file, nor larger, nor take more accuracy than is allowed.

    >>> base = {"arch": "a", "precision": "fp32", "val_accuracy": 0.9, "latency_ms": 1.0, "latency_high_ms": 1.1,
    ...         "file_bytes": 100}
    >>> why_undone(base, {**base, "arch": "b", "latency_ms": 1.2}, base, 1.0)
    'slower: 1.2000 ms, before 1.0000 ms (at most 1.1000 ms)'
    """
    allowed = max_accuracy_drop
    if (after["arch"], after["precision"]) == (before["arch"], before["precision"]):
        reference, allowed = before, 0.0
    elif after["latency_ms"] > before["latency_high_ms"]:
        return (
            f"slower: {after['latency_ms']:.4f} ms, before {before['latency_ms']:.4f} ms "
            f"(at most {before['latency_high_ms']:.4f} ms)"
        )
    elif after["file_bytes"] > before["file_bytes"]:
        return f"larger: {after['file_bytes']} bytes, before {before['file_bytes']}"
    lost = 100 * (reference["val_accuracy"] - after["val_accuracy"])
    if lost > allowed + 1e-9:
        return f"less accurate: {lost:.2f} points of validation accuracy lost, {allowed:.2f} allowed"
    return None


def deploy(artifact: Artifact, context: Context, folder: Path) -> Artifact:
    """Write the artifact and its ONNX file into ``folder``, run the file, and return the artifact with its metrics."""
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    name = "model.int8.onnx" if artifact.precision == "int8" else "model.onnx"
    export_onnx(artifact, partial / name)
    done = replace(artifact, files={"onnx": name}, metrics=file_metrics(artifact, partial / name, context))
    done.save(partial)
    (partial / "checkpoint.pt").unlink(missing_ok=True)
    finish_folder(partial, folder)
    return done


def file_metrics(artifact: Artifact, path: Path, context: Context) -> dict[str, Any]:
    """What a written file is: accuracy on the validation images, bytes, latency, peak RAM, and its distance from PyTorch."""
    workload = artifact.source.workload()
    formatted = workload.with_precision(artifact.precision)
    kernels = fuse(formatted, context.device.runtime)
    latency = measure(path, context.device) if context.measured else estimate(formatted, kernels, context.device)
    predictions = predict_onnx(path, context.data.val, artifact.preprocessing)
    return {
        "arch": artifact.source.id,
        "precision": artifact.precision,
        "val_accuracy": accuracy(predictions, context.data.val),
        "val_images": len(context.data.val),
        "val_differing_from_pytorch": differing(artifact, predictions, context.data.val),
        "params": workload.params,
        "macs": workload.macs,
        "file_bytes": path.stat().st_size,
        "weight_bytes": formatted.weight_bytes,
        "latency_ms": latency.ms,
        "latency_low_ms": latency.low_ms,
        "latency_high_ms": latency.high_ms,
        "latency_source": latency.source,
        "latency_raw_ms": latency.raw_ms,
        "peak_ram_bytes": plan(formatted, kernels).peak_bytes,
    }


def _run_stage(artifact: Artifact, stage: Stage, context: Context, folder: Path, show: ProgressFactory) -> Artifact:
    if (folder / "artifact.json").is_file():
        return Artifact.load(folder)
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    with show(stage.name) as report:
        after = stage(artifact, replace(context, checkpoint=partial / "checkpoint.pt", report=report))
    return deploy(replace(after, metrics={}, files={}, history=()), context, folder)
