"""Runs the layers of a file, and the whole file, in ONNX Runtime on the same inputs as the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, ValueInfoProto, helper

from compress.c99.layers import Integers, Network, ProgramLayer, Stored, Table
from compress.c99.numpy_reference import run_layer
from hw_profiles.onnx_io.rewrites.normal_form import normal_form
from hw_profiles.onnx_io.untrusted_file import load_model, shown

_MADE = "made:"
_LIMITS = (-128, 127)
_CHANCE = 0.01  # of the images: what a few close calls among few images may add
_MEAN_STEPS = 0.05  # by which outputs may differ: what rounding a twentieth of them otherwise adds


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeComparison:
    """A program's reference beside ONNX Runtime.

    ``layers`` layers were given the same integers as ONNX Runtime's nodes: ``equal`` of their numbers are the same, and
    ``largest`` is the largest difference in steps, at the layer ``worst``. Of whole images, the share ``disagreement``
    has another largest output than in ONNX Runtime's unoptimized graph, and ``own_disagreement`` is that of its
    optimized graph; ``mean_steps`` and ``own_mean_steps`` say by how many steps outputs differ on average.
    """

    layers: int
    equal: float
    largest: int
    worst: str
    disagreement: float
    own_disagreement: float
    mean_steps: float
    own_mean_steps: float

    def problems(self) -> tuple[str, ...]:
        """What is not as it must be, see :func:`compress.c99.verification.verify`."""
        found = []
        if self.largest > 1:
            found.append(f"layer {shown(self.worst)} is {self.largest} steps from what ONNX Runtime's node makes")
        flips = self.disagreement > max(self.own_disagreement, _CHANCE)
        if flips and self.mean_steps > max(self.own_mean_steps, _MEAN_STEPS):
            found.append(
                f"{self.disagreement:.1%} of the images get another class than in ONNX Runtime, "
                f"{self.own_disagreement:.1%} in itself, and outputs differ by {self.mean_steps:.2f} steps on average, "
                f"{self.own_mean_steps:.2f} in itself"
            )
        return tuple(found)

    def lines(self) -> tuple[str, ...]:
        """The same for a person."""
        return (
            f"Given the same integers, {self.equal:.4%} of the numbers of {self.layers} layers equal those of ONNX "
            f"Runtime's nodes; the largest difference is {self.largest}.",
            f"Of the images {self.disagreement:.2%} have another largest output than in ONNX Runtime without "
            f"optimization, {self.own_disagreement:.2%} do so in ONNX Runtime itself with it; outputs differ by "
            f"{self.mean_steps:.3f} steps on average, in ONNX Runtime itself by {self.own_mean_steps:.3f}.",
        )


def compared(
    network: Network,
    file: Path,
    inputs: Sequence[NDArray[Any]],
    tensors: Sequence[Mapping[str, Integers]],
    *,
    layer_images: int,
) -> RuntimeComparison:
    """Compare what the reference made (``tensors`` of each image) with ONNX Runtime, given ``inputs`` as the file takes
    them: layer by layer for the first images, and whole images."""
    alone = LayersAlone(file, network)
    equal, largest, worst = list[float](), 0, ""
    for values in tensors[:layer_images]:
        made = alone.made(values)
        for layer in alone.layers:
            found = made[layer.output.name]
            equal.append(float((found == values[layer.output.name]).mean()))
            apart = steps_apart(layer, [values[t.name].reshape(t.shape) for t in layer.inputs], found)
            if apart > largest:
                largest, worst = apart, layer.name
    expected = _outputs(network, file, inputs, optimized=False)
    own = _outputs(network, file, inputs, optimized=True)
    ours = np.stack([network.output_values.to_file(values[network.output.name]).reshape(-1) for values in tensors])
    flips = [float((each.argmax(axis=1) != expected.argmax(axis=1)).mean()) for each in (ours, own)]
    steps = [float(np.abs(each - expected).mean()) for each in (ours, own)]
    return RuntimeComparison(
        layers=len(alone.layers),
        equal=float(np.mean(equal)) if equal else 1.0,
        largest=largest,
        worst=worst,
        disagreement=flips[0],
        own_disagreement=flips[1],
        mean_steps=steps[0],
        own_mean_steps=steps[1],
    )


def _session(model: bytes, *, optimized: bool) -> Any:
    """ONNX Runtime with all optimizations, or with none: node by node as the file says."""
    options = ort.SessionOptions()
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class LayersAlone:
    """The nodes of a file, cut where a layer of the program ends: each is given the integers that it is told."""

    def __init__(self, file: Path, network: Network) -> None:
        self.network = network
        model = normal_form(load_model(file), batch=1)
        held = {t.name for layer in network.layers for t in (*layer.inputs, layer.output)}
        self.cut = {name: stored for name, stored in network.stored.items() if name in held}
        names = {stored.name for stored in self.cut.values()}
        for node in model.graph.node:
            if node.output[0] in names:
                node.output[0] = f"{_MADE}{node.output[0]}"
        self.layers = [layer for layer in network.layers if layer.output.name in self.cut]
        model.graph.ClearField("output")
        model.graph.output.extend(
            ValueInfoProto(name=f"{_MADE}{self.cut[layer.output.name].name}") for layer in self.layers
        )
        for stored in self.cut.values():
            kind = TensorProto.UINT8 if stored.shift else TensorProto.INT8
            model.graph.input.append(helper.make_tensor_value_info(stored.name, kind, stored.index.shape))
        kept = [value for value in model.graph.value_info if value.name not in names]
        model.graph.ClearField("value_info")
        model.graph.value_info.extend(kept)
        self.session = _session(model.SerializeToString(), optimized=False)

    def made(self, values: Mapping[str, Integers]) -> dict[str, NDArray[np.int64]]:
        """The integers that each layer's nodes make, by the name of the program's tensor and in its order."""
        if not self.layers:
            return {}
        source = self.network.input
        feeds = {self.network.input_values.name: as_file_input(self.network, values[source.name][None])[0]}
        for name, stored in self.cut.items():
            feeds[stored.name] = _in_file(stored, values[name])
        outputs = self.session.run(None, feeds)
        return {
            layer.output.name: self.cut[layer.output.name].to_program(
                np.asarray(found).astype(np.int64) - self.cut[layer.output.name].shift, layer.output.shape
            )
            for layer, found in zip(self.layers, outputs, strict=True)
        }


def steps_apart(layer: ProgramLayer, inputs: Sequence[Integers], made: NDArray[np.int64]) -> int:
    """How far a layer's numbers are from ONNX Runtime's at most, in steps. Where a table follows, each of the two nodes
    may round otherwise: the table is told the neighbors too."""
    first, *tables = layer.steps
    values = run_layer(replace(layer, steps=(first,)), list(inputs)).astype(np.int64)
    apart = []
    for step in (-1, 0, 1) if tables else (0,):
        found = np.clip(values + step, -128, 127)
        for table in tables:
            assert isinstance(table, Table)
            found = table.values.astype(np.int64)[found + 128]
        apart.append(np.abs(found - made.reshape(found.shape)))
    return int(np.min(apart, axis=0).max())


def as_file_input(network: Network, images: Integers) -> list[NDArray[Any]]:
    """Images of the program (N, H, W, C) as the file takes them, one by one, batch 1."""
    stored = network.input_values
    if network.integer_ends[0]:
        return [_in_file(stored, image) for image in images]
    return [network.input.quantization.to_float(stored.to_file(image)) for image in images]


def _outputs(network: Network, file: Path, inputs: Sequence[NDArray[Any]], *, optimized: bool) -> NDArray[np.float64]:
    """What ONNX Runtime makes of inputs, as (N, numbers), in whole steps of the program's output."""
    session = _session(file.read_bytes(), optimized=optimized)
    name, quantization = session.get_inputs()[0].name, network.output.quantization
    outputs = []
    for each in inputs:
        found = np.asarray(session.run(None, {name: each})[0], np.float64).reshape(-1)
        if network.integer_ends[1]:
            outputs.append(found - network.output_values.shift)
        else:
            steps = np.rint(found / quantization.scale) + quantization.zero_point
            outputs.append(np.clip(steps, *_LIMITS))
    return np.stack(outputs)


def _in_file(stored: Stored, values: Integers) -> NDArray[Any]:
    """The program's integers as the file has them."""
    found = stored.to_file(values)
    return (found.astype(np.int16) + stored.shift).astype(np.uint8) if stored.shift else found
