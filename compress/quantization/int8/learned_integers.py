"""A network in 8-bit integers whose weights and scales are parameters (LSQ, arXiv 1902.08153)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.quantization.int8.calibration import SMALLEST_SCALE
from compress.quantization.int8.ptq import Quantize
from compress.quantization.simulator.integer_ops import Grid, rounded
from compress.quantization.simulator.simulator import Operands, Step, run_integers, steps
from hw_profiles.network.graph import MOVES, KeptNodes
from hw_profiles.network.quantization import LARGEST_BIAS, LARGEST_WEIGHT, Quantization, with_gates
from hw_profiles.network.workload import VIEWS, WEIGHTED, Op, Workload

START = Quantize(calibration="minmax", equalize="none", bias_correction=False, adaround=False)
_HIGHEST = {"relu6": 6 / 255}  # a coarser scale would let more than 6 through, which the runtime then cuts off in float


class LearnedIntegers(nn.Module):
    """A workload in integers whose weights, biases and scales are parameters: (N, C, H, W) images -> logits. In the
    weights that are ``sparse`` the zeros stay. ``nodes`` are those of operations that the workload only names, which
    are computed in float with constants that stay. ``one_at_a_time``: these are for one image, so that a batch is run
    image by image."""

    highest: Tensor
    pace: Tensor

    def __init__(
        self,
        workload: Workload,
        weights: Mapping[str, NDArray[np.float32]],
        quantization: Quantization,
        *,
        nodes: Mapping[str, KeptNodes] = MappingProxyType({}),
        sparse: Collection[str] = (),
    ) -> None:
        super().__init__()
        workload = with_gates(workload, quantization)
        self.workload = workload
        self.steps = steps(workload, nodes)
        self.one_at_a_time = False
        self.initial = quantization
        ops = [step.op for step in self.steps if step.op.kind in WEIGHTED]
        self.places = {op.name: i for i, op in enumerate(ops)}
        shared = {op.weight: nn.Parameter(torch.from_numpy(weights[op.weight].copy())) for op in ops}
        scales = {op.weight: _scales(op, weights, quantization) for op in ops}
        self.weights = nn.ParameterList([shared[op.weight] for op in ops])
        self.zeros = [torch.from_numpy(weights[op.weight] == 0) if op.weight in sparse else None for op in ops]
        self.biases = nn.ParameterList([_bias(op, weights) for op in ops])
        self.weight_scales = nn.ParameterList([scales[op.weight] for op in ops])
        self.tensors = _places(workload, quantization)
        self.scales = nn.Parameter(_distinct(self.tensors, {n: s for n, (s, _) in quantization.activations.items()}))
        highest = {op.name: _HIGHEST.get(op.function, math.inf) for op in workload.ops}
        self.register_buffer("highest", _distinct(self.tensors, {n: highest.get(n, math.inf) for n in self.tensors}))
        sizes = {name: math.prod(workload.shapes[name]) * 255.0 for name in self.tensors}
        self.register_buffer("pace", _distinct(self.tensors, sizes).rsqrt())

    def forward(self, x: Tensor) -> Tensor:
        """The logits of the integers as they are now; a gradient reaches every weight and scale."""
        numbers = _Learned(self)
        parts = torch.split(x, 1) if self.one_at_a_time else (x,)
        return torch.cat([run_integers(self.workload, self.steps, numbers, part) for part in parts])

    def activation_scales(self) -> Tensor:
        """The scale of each distinct tensor, with the gradient that it learns from."""
        scales = _paced(self.scales.abs().clamp_min(SMALLEST_SCALE), self.pace)
        return scales + (torch.minimum(scales, self.highest) - scales).detach()

    def weights_on_the_grid(self) -> dict[str, NDArray[np.float32]]:
        """Folded weights and biases that are whole multiples of their scales."""
        found: dict[str, NDArray[np.float32]] = {}
        with torch.no_grad():
            numbers = _Learned(self)
            for step in self.steps:
                if step.op.name in self.places:
                    found |= self._on_the_grid(step, numbers)
        return found

    def quantization(self) -> Quantization:
        """The scales as they are now."""
        with torch.no_grad():
            scales = self.activation_scales().tolist()
            integers = [op for op in self.workload.ops if op.name in self.places and not self.in_float(op)]
            found = {op.weight: self.scale_of(op).detach().numpy().copy() for op in integers}
        zeros = {name: zero for name, (_, zero) in self.initial.activations.items()}
        activations = {name: (scales[i], zeros[name]) for name, i in self.tensors.items()}
        return replace(self.initial, activations=activations, weights=found)

    def in_float(self, op: Op) -> bool:
        """Whether an operation is computed in float."""
        return op.name in self.initial.in_float

    def scale_of(self, op: Op) -> Tensor:
        """The scales of an operation's weights, (out_channels,), with the gradient that they learn from."""
        each = math.prod(op.weight_shape[1:])
        scales = self.weight_scales[self.places[op.name]].abs().clamp_min(1e-12)
        return _paced(scales, torch.tensor(1 / math.sqrt(each * LARGEST_WEIGHT)))

    def _on_the_grid(self, step: Step, numbers: _Learned) -> dict[str, NDArray[np.float32]]:
        op, operands = step.op, numbers.operands(step)
        weight, bias = operands.weight, operands.bias
        if operands.multiplier is not None and bias is not None:
            scales = self.scale_of(op)
            weight = weight * scales.view(-1, *([1] * (weight.ndim - 1)))
            bias = bias * scales * numbers.grid(op.inputs[0]).scale
        found = {op.weight: weight.detach().contiguous().numpy().copy()}
        return found | ({op.bias_name: bias.detach().numpy().copy()} if op.bias and bias is not None else {})


class _Learned:
    """The numbers of one forward pass."""

    def __init__(self, model: LearnedIntegers) -> None:
        self.model = model
        scales, signed = model.activation_scales(), model.initial.signed
        zeros = {i: model.initial.activations[name][1] for name, i in model.tensors.items()}
        self.grids = {i: Grid.of(scales[i], zero, signed=signed) for i, zero in zeros.items()}
        self.in_float = model.initial.in_float

    def holds(self, name: str) -> bool:
        return name in self.model.tensors

    def grid(self, name: str) -> Grid:
        return self.grids[self.model.tensors[name]]

    def operands(self, step: Step) -> Operands:
        model, op = self.model, step.op
        place = model.places[op.name]
        weight, bias, zeros = model.weights[place], model.biases[place], model.zeros[place]
        weight = weight if zeros is None else weight.masked_fill(zeros, 0.0)
        if model.in_float(op):
            return Operands(weight, bias, None)
        scales = model.scale_of(op)
        products = scales * self.grid(op.inputs[0]).scale
        return Operands(
            rounded(weight / scales.view(-1, *([1] * (weight.ndim - 1))), -LARGEST_WEIGHT, LARGEST_WEIGHT),
            rounded(bias / products, -LARGEST_BIAS, LARGEST_BIAS),
            products / self.grid(step.output).scale,
        )


def _paced(scales: Tensor, pace: Tensor) -> Tensor:
    """The same numbers, their gradient times ``pace``."""
    fixed = scales.detach()
    return fixed + (scales - fixed) * pace


def _bias(op: Op, weights: Mapping[str, NDArray[np.float32]]) -> nn.Parameter:
    if op.bias:
        return nn.Parameter(torch.from_numpy(weights[op.bias_name].copy()))
    return nn.Parameter(torch.zeros(op.out_channels), requires_grad=False)


def _scales(op: Op, weights: Mapping[str, NDArray[np.float32]], quantization: Quantization) -> nn.Parameter:
    found = quantization.scales_of(op.weight, weights[op.weight])
    return nn.Parameter(torch.from_numpy(np.broadcast_to(found, (op.out_channels,)).copy()))


def _places(workload: Workload, quantization: Quantization) -> dict[str, int]:
    """A number for each tensor. Views, maxima and what only moves numbers keep the one of what they are taken of where
    their scales agree."""
    follows = {op.name: op.inputs[0] for op in workload.ops if op.kind in (*VIEWS, *MOVES, "max_pool")}
    found: dict[str, int] = {}
    for name in workload.shapes:
        if name in quantization.activations:
            source = follows.get(name, name)
            alike = source in found and quantization.activations[source] == quantization.activations[name]
            found[name] = found[source] if alike else len(set(found.values()))
    return found


def _distinct(places: Mapping[str, int], values: Mapping[str, float]) -> Tensor:
    """One value for each number; that of the tensor which the others follow."""
    first: dict[int, float] = {}
    for name, i in places.items():
        first.setdefault(i, values[name])
    return torch.tensor([first[i] for i in range(len(first))], dtype=torch.float32)
