"""Reads the file of a network that is not an Arch as a workload with weights, where that says all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compress.networks.torch_export import PARITY, distance
from compress.quantization.int8.activation_stats import logits
from compress.quantization.int8.ptq_onnx import prepared
from compress.weight_codecs.onnx_storage import Weight, tensors_of, weights_of
from hw_profiles.errors import InputError
from hw_profiles.network.workload import WEIGHTED, Op, Workload
from hw_profiles.onnx_io.normal_form import normal_bytes
from hw_profiles.onnx_io.reader import read_onnx
from hw_profiles.onnx_io.untrusted_file import load_model
from hw_profiles.onnx_io.writer import write_onnx

Weights = dict[str, NDArray[np.float32]]

_PARITY_IMAGES = 2


def lifted(data: bytes, input_shape: tuple[int, int, int]) -> tuple[Workload, Weights]:
    """The workload of a float32 file and its weights and biases by the workload's names, batch normalisation folded:
    what :func:`hw_profiles.onnx_io.writer.write_onnx` makes a file of that says what the given one says.

    Raises:
        InputError: the file has operations that a workload of this kind does not have, or weights that are computed.

    >>> from search_spaces import preset
    >>> file = write_onnx(preset("resnet8").workload())
    >>> workload, weights = lifted(file, (3, 32, 32))
    >>> workload.macs == preset("resnet8").workload().macs, weights["classifier.weight"].shape
    (True, (10, 64))
    """
    folded = prepared(normal_bytes(load_model(data), input_shape=input_shape))
    workload, graph = read_onnx(folded, input_shape), load_model(folded).graph
    nodes = {name: node for node in graph.node for name in node.output}
    tensors, read = tensors_of(graph), {weight.name: weight for weight in weights_of(graph)}
    weights: Weights = {}
    for op in workload.ops:
        if op.kind in WEIGHTED:
            weights |= _weights(op, nodes.get(op.name), read, tensors)
    x = np.random.default_rng(0).standard_normal((_PARITY_IMAGES, *input_shape)).astype(np.float32)
    try:
        again = logits(write_onnx(workload, weights), x)
    except (KeyError, ValueError, onnx.checker.ValidationError) as error:
        reason = f"it has {error.args[0]}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise InputError(f"a network of convolutions, activations, sums and pools is needed ({reason})") from None
    off = distance(again, logits(data, x))
    if not off < PARITY:
        raise InputError(
            f"a network of plain operations is needed: read and written again this one is off by {off:.1e}"
        )
    return workload, weights


def _weights(op: Op, node: Any, read: Mapping[str, Weight], tensors: Mapping[str, Any]) -> Weights:
    names = [name for name in node.input[1:] if name] if node is not None else []
    if len(names) != 1 + bool(op.bias) or names[0] not in read or not all(name in tensors for name in names):
        raise InputError(f"operation {op.name}: one node must read its weights, which are constants of the file")
    found = {op.weight: read[names[0]].rows.reshape(op.weight_shape)}
    if op.bias:
        found[op.bias_name] = np.array(numpy_helper.to_array(tensors[names[1]]), np.float32)
    return found
