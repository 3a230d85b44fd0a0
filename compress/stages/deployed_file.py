"""Writes the ONNX file of an artifact, runs it in ONNX Runtime, and measures it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from compress.atomic_files import finish_folder
from compress.data.dataset import VAL_SEEN
from compress.fnz import encode_onnx
from compress.networks.artifact import Artifact
from compress.networks.onnx_export import differing, export_onnx, predict_onnx
from compress.stage_interface import Context
from compress.training.evaluation import accuracy
from hw_profiles.devices.footprint import flash_bytes, ram_bytes
from hw_profiles.latency.estimate import estimate
from hw_profiles.measurement.latency_measurement import compare, measure
from hw_profiles.runtimes.fusion import fuse


def deploy(artifact: Artifact, context: Context, folder: Path, before: Path | None = None) -> Artifact:
    """Write the artifact and its ONNX file into ``folder``, run the file, and return the artifact with its metrics.

    Metrics and files that it brings, such as what its training took, are kept. With ``before``, a folder like it,
    ``latency_ratio`` says how many times as long the new file takes as the one there.
    """
    artifact.network.require_savable()
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
        "val_seen": VAL_SEEN in context.data.facts,
        "val_differing_from_pytorch": differing(artifact, predictions, context.data.val),
        "weight_form": _weight_form(artifact),
        "params": artifact.source.workload().params,
        "macs": formatted.macs,
        "file_bytes": path.stat().st_size,
        "coded_bytes": len(encode_onnx(path.read_bytes())),
        "weight_bytes": formatted.weight_bytes,
        **latency.facts(),
        "peak_ram_bytes": ram_bytes(formatted, kernels, context.device),
        "flash_bytes": flash_bytes(formatted, kernels, context.device),
    }


def _weight_form(artifact: Artifact) -> str:
    """Eight hexadecimal digits that differ where weights are stored in other formats or computed with in float; empty
    in the usual ones."""
    in_float = sorted(artifact.quantization.in_float) if artifact.quantization else []
    workload = artifact.workload()
    of_file = {op.weight: workload.format(op.weight) for op in workload.ops if op.stores_weights}
    formats = {name: each for name, each in of_file.items() if each.bits not in (8, 32)} | {**artifact.weight_formats}
    if not formats and not in_float:
        return ""
    named = [*sorted((name, astuple(stored)) for name, stored in formats.items()), *in_float]
    return hashlib.sha256(repr(named).encode()).hexdigest()[:8]


def _latency_ratio(
    metrics: Mapping[str, Any], path: Path, earlier: Artifact, folder: Path, context: Context
) -> list[float]:
    if context.measured:
        return list(compare(path, folder / earlier.files["onnx"], context.device))
    ratio = metrics["latency_ms"] / earlier.metrics["latency_ms"]
    return [ratio, ratio, ratio]
