"""How much int8 may hurt a network, guessed before it is trained."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compress.networks.onnx_export import folded_weights
from compress.quantization.int8.activation_stats import histograms
from compress.quantization.int8.ptq import activation_scales
from compress.quantization.simulator.simulator import Simulated
from hw_profiles.network.quantization import Quantization, quantized_tensors
from hw_profiles.onnx_io.writer import write_onnx
from search_spaces.arch import Arch
from search_spaces.model import build_model


def fragility(arch: Arch, images: NDArray[np.float32], *, seed: int = 0) -> float:
    """The noise that int8 adds to the logits of the untrained network, as a share of what tells the images apart.

    ``images`` (N, C, H, W) are network inputs; the statistics of batch normalization and the ranges of activations are
    theirs. Both are root mean squares; 0 is no noise.

    >>> from search_spaces import preset
    >>> images = np.random.default_rng(0).standard_normal((32, 3, 32, 32)).astype(np.float32)
    >>> 0 < fragility(preset("resnet8"), images) < 0.2
    True
    """
    workload = arch.workload()
    model = build_model(arch, seed=seed)
    x = torch.from_numpy(images)
    _gather_statistics(model, x)
    weights = folded_weights(model.eval(), workload)
    seen = histograms(write_onnx(workload, weights), quantized_tensors(workload), images)
    integers = Simulated(workload, weights, Quantization(activations=activation_scales(workload, seen, "minmax")))
    with torch.no_grad():
        wanted = model(x)
        noise = integers(x) - wanted
    return float(noise.square().mean().sqrt() / (wanted - wanted.mean(0)).square().mean().sqrt())


@torch.no_grad()
def _gather_statistics(model: nn.Module, x: torch.Tensor) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all that it has seen
    model.train()(x)
