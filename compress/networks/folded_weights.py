"""Puts weights with folded batch normalisation back into the network they came from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from blocks.conv import ConvNormAct
from compress.networks.artifact import Artifact
from compress.networks.batchnorm_folding import fold_normalisation
from hw_profiles.errors import InputError

Weights = Mapping[str, NDArray[np.float32]]


def with_folded_weights(artifact: Artifact, weights: Weights) -> Artifact:
    """The artifact of an Arch whose :func:`compress.networks.onnx_export.folded_weights` are ``weights``, those of
    the same names.

    Batch normalisation becomes neutral: its bias is the convolution's.

    Raises:
        InputError: a weight has no place in the network, or another shape.

    >>> from compress import Preprocessing
    >>> from compress.networks.onnx_export import folded_weights
    >>> from search_spaces import build_model, preset
    >>> arch = preset("resnet8")
    >>> record = Preprocessing(channels=3, sizes=((32, 32),), mean=(0.5,) * 3, std=(0.25,) * 3, class_names=("a", "b"))
    >>> artifact = Artifact(source=arch, weights={}, preprocessing=record).with_model(build_model(arch))
    >>> changed = with_folded_weights(artifact, {"stem.bias": np.full(16, 0.1, np.float32)})
    >>> folded_weights(changed.model(), arch.workload())["stem.bias"].max()
    np.float32(0.1)
    """
    model = artifact.model()
    fold_normalisation(model)
    modules, state = dict(model.named_modules()), model.state_dict()
    for name, value in weights.items():
        owner, _, part = name.rpartition(".")
        own = {"weight": f"{owner}.conv.weight", "bias": f"{owner}.norm.bias"}
        key = own[part] if isinstance(modules.get(owner), ConvNormAct) else name
        if key not in state or state[key].shape != value.shape:
            wanted = tuple(state[key].shape) if key in state else "none of that name"
            raise InputError(f"weight {name} must have the network's shape ({wanted}), got {value.shape}")
        state[key].copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return artifact.with_model(model)
