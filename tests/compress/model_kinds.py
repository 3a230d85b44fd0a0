"""Networks of each kind, stages that take no time, and what is read from their files."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import timm
import torch
from torch import nn

from compress import Artifact, Quantize, Recipe
from compress.networks.onnx_export import onnx_bytes
from search_spaces import preset
from tests.contracts import with_random_statistics

BLINK = Recipe(epochs=0.05, learning_rate=0.01)
INTEGERS = Quantize(calibration="minmax", equalize="none", bias_correction=False, adaround=False, images=64)
ARCH = preset("resnet8", input_shape=(1, 16, 16))


def small() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    return with_random_statistics(layers)


def of_timm() -> nn.Module:
    torch.manual_seed(1)
    sides = {"img_size": 16, "patch_size": 4, "depth": 2, "embed_dim": 64, "num_heads": 4, "mlp_ratio": 1.0}
    model: nn.Module = timm.create_model("vit_tiny_patch16_224", num_classes=10, in_chans=1, **sides)
    return model


def bits(artifact: Artifact) -> dict[str, int]:
    return {name: stored.bits for name, stored in artifact.weight_formats.items()}


def tensor_types(artifact: Artifact) -> set[int]:
    return {tensor.data_type for tensor in onnx.load_model_from_string(onnx_bytes(artifact)).graph.initializer}


def logits(file: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    parts = [x] if given.shape[0] == "N" else np.split(x, len(x))
    return np.concatenate([session.run(None, {given.name: part})[0] for part in parts])
