"""Compression: data, the training loop, stages that turn an Artifact into a smaller one, and one line for each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.api import cluster, decode, distill, encode, prune, quantize, sparsify
    from compress.clustering.cluster import Cluster
    from compress.data.dataset import Dataset, load_data
    from compress.data.preprocessing import Preprocessing
    from compress.distillation.distill import Distill
    from compress.distillation.ensemble import Ensemble
    from compress.fnz import sizes
    from compress.fnz.encode_stage import Encode
    from compress.networks.artifact import Artifact
    from compress.networks.network_source import OnnxFile, Timm
    from compress.networks.onnx_export import export_onnx
    from compress.pruning.prune import Prune
    from compress.quantization.int8.ptq import Quantize
    from compress.quantization.int8.qat import QuantizeAware
    from compress.quantization.mixed_precision.mixed_precision import MixedPrecision
    from compress.quantization.simulator.simulator import simulated
    from compress.quantization.weight_only.binary import Binarize, store_binary
    from compress.quantization.weight_only.fp16 import Half, store_half
    from compress.quantization.weight_only.int4 import Int4, store_int4
    from compress.sparsity.sparsify import Sparsify
    from compress.stage_interface import Context
    from compress.stages.runner import run_stages
    from compress.stages.stage_order import STAGES
    from compress.training.loop import Recipe

__all__ = [
    "STAGES",
    "Artifact",
    "Binarize",
    "Cluster",
    "Context",
    "Dataset",
    "Distill",
    "Encode",
    "Ensemble",
    "Half",
    "Int4",
    "MixedPrecision",
    "OnnxFile",
    "Preprocessing",
    "Prune",
    "Quantize",
    "QuantizeAware",
    "Recipe",
    "Sparsify",
    "Timm",
    "cluster",
    "decode",
    "distill",
    "encode",
    "export_onnx",
    "load_data",
    "prune",
    "quantize",
    "run_stages",
    "simulated",
    "sizes",
    "sparsify",
    "store_binary",
    "store_half",
    "store_int4",
]

_HOMES = {
    "STAGES": "stages.stage_order",
    "Artifact": "networks.artifact",
    "Binarize": "quantization.weight_only.binary",
    "Cluster": "clustering.cluster",
    "Context": "stage_interface",
    "Dataset": "data.dataset",
    "Distill": "distillation.distill",
    "Encode": "fnz.encode_stage",
    "Ensemble": "distillation.ensemble",
    "Half": "quantization.weight_only.fp16",
    "Int4": "quantization.weight_only.int4",
    "MixedPrecision": "quantization.mixed_precision.mixed_precision",
    "OnnxFile": "networks.network_source",
    "Preprocessing": "data.preprocessing",
    "Prune": "pruning.prune",
    "Quantize": "quantization.int8.ptq",
    "QuantizeAware": "quantization.int8.qat",
    "Recipe": "training.loop",
    "Sparsify": "sparsity.sparsify",
    "Timm": "networks.network_source",
    "cluster": "api",
    "decode": "api",
    "distill": "api",
    "encode": "api",
    "export_onnx": "networks.onnx_export",
    "load_data": "data.dataset",
    "prune": "api",
    "quantize": "api",
    "run_stages": "stages.runner",
    "simulated": "quantization.simulator.simulator",
    "sizes": "fnz",
    "sparsify": "api",
    "store_binary": "quantization.weight_only.binary",
    "store_half": "quantization.weight_only.fp16",
    "store_int4": "quantization.weight_only.int4",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"compress.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'compress' has no attribute {name!r}")
