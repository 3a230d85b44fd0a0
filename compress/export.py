"""From an artifact to an ONNX file, and what that file predicts in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from blocks.conv import ConvNormAct
from compress.artifact import Artifact
from compress.data import Split
from compress.files import write_bytes
from compress.preprocessing import METADATA_KEY, Preprocessing
from compress.train import predict
from hw_profiles.host import open_session
from hw_profiles.onnx_write import write_onnx
from hw_profiles.workload import WEIGHTED, Workload

_PARITY = 1e-3  # of the largest logit; float32 sums in another order


def export_onnx(artifact: Artifact, path: Path) -> None:
    """Write the artifact as ONNX: batch normalisation folded, int8 where activations have scales, preprocessing inside.

    Raises:
        RuntimeError: the float32 file, run in ONNX Runtime, gives other logits than the module.
    """
    workload = artifact.source.workload()
    model = artifact.model()
    metadata = {METADATA_KEY: artifact.preprocessing.to_json(), "fitnas.arch": artifact.source.id}
    weights = folded_weights(model, workload)
    write_bytes(path, write_onnx(workload, weights, quantization=artifact.activations or None, metadata=metadata))
    if not artifact.activations:
        _check_parity(model, path, artifact.preprocessing)


def folded_weights(model: nn.Module, workload: Workload) -> dict[str, NDArray[np.float32]]:
    """Weights and biases of every operation with the batch normalisation that follows it folded in.

    >>> from search_spaces import build_model, preset
    >>> arch = preset("resnet8")
    >>> folded_weights(build_model(arch), arch.workload())["stem.bias"].shape
    (16,)
    """
    weights: dict[str, NDArray[np.float32]] = {}
    for op in workload.ops:
        if op.kind not in WEIGHTED:
            continue
        module = model.get_submodule(op.name)
        if isinstance(module, ConvNormAct):
            weights[op.weight], weights[op.bias_name] = _folded(module)
        else:
            weights[op.weight] = _array(module.weight)
            if op.bias:
                weights[op.bias_name] = _array(module.bias)
    return weights


def predict_onnx(path: Path, split: Split, preprocessing: Preprocessing, batch_size: int = 250) -> NDArray[np.int64]:
    """The class that ONNX Runtime gives each image."""
    return np.concatenate([logits.argmax(1) for logits in _run(path, split.images, preprocessing, batch_size)])


def differing(artifact: Artifact, predictions: NDArray[np.int64], split: Split) -> int:
    """How many predictions of a deployed file are not those of the artifact's float32 module."""
    return int(np.sum(predict(artifact.model(), split, artifact.preprocessing) != predictions))


def _run(
    path: Path, images: NDArray[np.uint8], preprocessing: Preprocessing, batch_size: int
) -> list[NDArray[np.float32]]:
    session = open_session(path)
    name, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    return [
        session.run([output], {name: preprocessing.tensor(images[i : i + batch_size])})[0]
        for i in range(0, len(images), batch_size)
    ]


def _folded(module: ConvNormAct) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    norm = module.norm
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = module.conv.weight.detach().double() * scale.view(-1, 1, 1, 1)
    bias = norm.bias.detach().double() - norm.running_mean.double() * scale
    return weight.float().contiguous().numpy(), bias.float().numpy()


def _array(parameter: object) -> NDArray[np.float32]:
    assert isinstance(parameter, nn.Parameter)
    array: NDArray[np.float32] = parameter.detach().float().contiguous().numpy()
    return array


def _check_parity(model: nn.Module, path: Path, preprocessing: Preprocessing) -> None:
    import torch

    generator = np.random.default_rng(0)
    channels, height, width = preprocessing.input_shape
    images = generator.integers(0, 256, (8, height, width, channels), dtype=np.uint8)
    with torch.inference_mode():
        expected = model(torch.from_numpy(preprocessing.tensor(images))).numpy()
    got = _run(path, images, preprocessing, 8)[0]
    worst = float(np.abs(expected - got).max() / max(np.abs(expected).max(), 1e-6))
    if not worst < _PARITY:
        raise RuntimeError(f"{path.name}: ONNX Runtime and PyTorch differ by {worst:.1e} of the largest logit")
