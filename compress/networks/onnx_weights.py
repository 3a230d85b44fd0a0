"""The float32 weights of an ONNX file as layers that a stage can change in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from onnx import numpy_helper
from torch import nn

from compress.networks.artifact import Artifact
from compress.networks.network_source import OnnxFile
from compress.networks.onnx_export import onnx_bytes
from compress.networks.weight_layers import WeightLayer, layers_of
from compress.weight_codecs.onnx_storage import Weight, tensors_of, weights_of
from compress.weight_codecs.sparse_formats import sparse_format, zeros_alone
from hw_profiles.errors import InputError
from hw_profiles.network.tensor_formats import TensorFormat
from hw_profiles.onnx_io.graph_edges import check_valid
from hw_profiles.onnx_io.rewrites.half_precision import in_float32
from hw_profiles.onnx_io.rewrites.normal_form import normal_form
from hw_profiles.onnx_io.untrusted_file import load_model

# change(module, layers): changes the layers, which are all that the module of a file holds; the format of each weight.
Change = Callable[[nn.Module, Mapping[str, WeightLayer]], Mapping[str, TensorFormat]]

_LINEAR = ("Gemm", "MatMul")


def with_changed_weights(artifact: Artifact, change: Change) -> Artifact:
    """The artifact whose weights of convolutions and linear layers are what ``change`` made of them.

    Raises:
        InputError: the network has no float32 weights of such layers.
    """
    if artifact.network.file is None:
        module = artifact.model()
        stored = {f"{name}.weight": each for name, each in change(module, layers_of(artifact, module)).items()}
        return replace(artifact.with_model(module), weight_formats={**artifact.weight_formats, **stored})
    given = load_model(onnx_bytes(artifact))
    model, wide = normal_form(given), in_float32(given)
    if wide is not given:
        model = max(model, normal_form(wide), key=lambda each: len(weights_of(each.graph)))
    weights = {weight.name: weight for weight in weights_of(model.graph)}
    if not weights:
        raise InputError(
            f"{artifact.network.label}: must have float32 weights of convolutions or linear layers, has none"
        )
    linear = {name for node in model.graph.node if node.op_type in _LINEAR for name in node.input}
    layers = {name: _layer(weight, name in linear) for name, weight in weights.items()}
    formats = change(nn.ModuleList(layers.values()), layers)
    tensors = tensors_of(model.graph)
    for name, layer in layers.items():
        value = weights[name].shaped(layer.weight.detach().numpy())
        tensors[name].CopyFrom(numpy_helper.from_array(value, tensors[name].name))
    check_valid(model)
    read_by = {node.input[1]: node.output[0] for node in model.graph.node if len(node.input) > 1}
    operations = {op.name: op.weight for op in artifact.workload().ops}
    stored = {operations[read_by[n]]: each for n, each in formats.items() if read_by[n] in operations}
    changed = with_file(artifact, model.SerializeToString(deterministic=True))
    return replace(changed, weight_formats={**artifact.weight_formats, **stored})


def with_file(artifact: Artifact, data: bytes, remark: str = "") -> Artifact:
    """The artifact of a network that is no Arch with the file that a stage made of its own."""
    network = artifact.network
    file = OnnxFile(data=data, label=f"{network.label} {remark}".strip(), stated_shape=network.stated_shape)
    return replace(artifact, deployed=file)


def with_int8_file(artifact: Artifact, data: bytes) -> Artifact:
    """The artifact of a network that is no Arch with its file in 8-bit integers; zeros that stages before made are in
    its formats."""
    changed = with_file(artifact, data, "in int8")
    assert changed.deployed is not None
    formats = zeros_of(changed.deployed) if zeros_alone(artifact.weight_formats) else {}
    return replace(changed, weight_formats=formats)


def zeros_of(file: OnnxFile) -> dict[str, TensorFormat]:
    """The densities of the weights of a file, float or integers, of which some are zero."""
    graph = load_model(file.data).graph
    tensors, nodes = tensors_of(graph), {name: node for node in graph.node for name in node.output}
    found = {}
    for op in file.workload().ops:
        name = nodes[op.name].input[1] if op.stores_weights and op.name in nodes else ""
        while name not in tensors and name in nodes:  # integers behind a DequantizeLinear
            name = nodes[name].input[0]
        if name in tensors:
            value = numpy_helper.to_array(tensors[name])
            found[op.weight] = float(np.count_nonzero(value) / value.size)
    return {name: sparse_format(share) for name, share in found.items() if share < 1}


def _layer(weight: Weight, linear: bool) -> WeightLayer:
    """With the output channels first, as torch has them."""
    value = np.ascontiguousarray(np.moveaxis(weight.value, weight.axis, 0))
    layer: WeightLayer = nn.Linear(1, 1, bias=False) if linear else nn.Conv2d(1, 1, 1, bias=False)
    layer.weight = nn.Parameter(torch.from_numpy(value.copy()))
    return layer
