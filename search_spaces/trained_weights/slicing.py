"""Takes the weights of a smaller network out of those of a larger one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hw_profiles.errors import InputError
from hw_profiles.network.channel_groups import channel_groups
from hw_profiles.network.workload import WEIGHTED, Op, Shape
from search_spaces.arch import Arch
from search_spaces.trained_weights.timm_keys import CLASSIFIER, STEM, timm_keys
from search_spaces.trained_weights.weights_file import state_of_classes

State = Mapping[str, Tensor]


def sliced_weights(arch: Arch, path: Path) -> dict[str, Tensor]:
    """A state dict for ``build_model(arch)`` from a file of timm's weights of this network or of a larger one.

    The larger one may have more channels, more blocks at the end of each stage and larger kernels. Of the channels
    that belong together the most important stay: those where the scale of the batch normalization that writes them,
    times the norm of the weights that read them, is largest. Of a kernel the center stays. What a batch normalization
    has counted is of the larger network, so a sliced one has to be trained before it is asked.

    Raises:
        InputError: the file cannot be read, or the network is no part of the one that it is of; a tensor is named.
    """
    state, wanted = state_of_classes(arch, path)
    try:
        return _Slices(arch, state, wanted).weights()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


class _Slices:
    """The parts of a state dict, under timm's names, that a network takes."""

    def __init__(self, arch: Arch, state: State, wanted: Mapping[str, tuple[str, Shape]]) -> None:
        self.workload = arch.workload()
        self.of = channel_groups(self.workload).of
        self.state = state
        self.wanted = wanted
        self.theirs = {ours: key for key, (ours, _) in timm_keys(arch).items()}
        _check_names(arch, state, wanted)
        self.width = self._widths()

    def weights(self) -> dict[str, Tensor]:
        """Our names -> slices."""
        kept = self._kept()
        slices = {}
        for op, key, ours, shape in self._tensors():
            value = self.state[key].float()
            value = value.index_select(0, kept[self.of[op.name]])
            if value.ndim > 1 and not op.depthwise:
                value = value.index_select(1, kept[self.of[op.inputs[0]]])
            slices[ours] = _center(value, shape).contiguous()
        return slices

    def _tensors(self) -> Iterator[tuple[Op, str, str, Shape]]:
        """Each tensor that is wanted: its operation, timm's name, ours, and the shape that it gets."""
        for op in self.workload.ops:
            for ours in _names(op) if op.kind in WEIGHTED else ():
                key = self.theirs.get(ours, "")
                if key in self.wanted:
                    yield op, key, ours, self.wanted[key][1]

    def _widths(self) -> dict[str, int]:
        """How many channels of each group the file has; its tensors must agree on that."""
        width: dict[str, int] = {}
        for op, key, _, shape in self._tensors():
            found = tuple(self.state[key].shape)
            groups = [self.of[op.name], self.of[op.inputs[0]]]
            known = [width.setdefault(group, size) for group, size in zip(groups, found, strict=False)]
            if op.depthwise:
                known[1:] = shape[1:2]
            fits = len(found) == len(shape) and all(a >= b for a, b in zip(found, shape, strict=True))
            same = tuple(known[: len(shape)]) == found[:2]
            centered = all((a - b) % 2 == 0 for a, b in zip(found[2:], shape[2:], strict=False))
            if not (fits and same and centered):
                raise InputError(f"{key} must have a part of the shape {shape}, got {found}")
        channels = self.workload.shapes[self.workload.input][1]
        if width[self.of[self.workload.input]] != channels:
            raise InputError(f"{STEM} must read {channels} channels, got {width[self.of[self.workload.input]]}")
        return width

    def _kept(self) -> dict[str, Tensor]:
        """The numbers of the channels of each group that stay, ascending."""
        written, read = self._importance()
        kept = {}
        for group, width in self.width.items():
            score = written.get(group, torch.ones(width)) * read.get(group, torch.ones(width))
            left = self.workload.shapes[group][1]
            kept[group] = score.argsort(descending=True, stable=True)[:left].sort().values
        return kept

    def _importance(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """How strongly each channel of a group is written and read, of each layer on the mean 1, over all layers."""
        written: dict[str, Tensor] = {}
        read: dict[str, Tensor] = {}
        for op in self.workload.ops:
            if op.kind not in WEIGHTED:
                continue
            weight = self.state.get(self.theirs[_names(op)[0]])
            if weight is None or weight.ndim < 2:  # the file has no classifier
                continue
            scale = self.state[self.theirs[f"{op.name}.norm.weight"]].abs() if op.normalized else _norms(weight, 0)
            _add(written, self.of[op.name], scale)
            group = self.of[op.inputs[0]]
            if not op.depthwise and weight.shape[1] == self.width[group]:
                _add(read, group, _norms(weight, 1))
        return written, read


def _names(op: Op) -> list[str]:
    """Our names of what an operation has, the weight first."""
    if not op.normalized:
        return [op.weight, op.bias_name]
    return [
        f"{op.name}.conv.weight",
        *(f"{op.name}.norm.{p}" for p in ("weight", "bias", "running_mean", "running_var")),
    ]


def _norms(weight: Tensor, dimension: int) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(weight.float().transpose(0, dimension).flatten(1), dim=1)
    return norms


def _add(totals: dict[str, Tensor], group: str, values: Tensor) -> None:
    values = values.float()
    totals[group] = totals.get(group, torch.zeros_like(values)) + values / values.mean().clamp_min(1e-12)


def _center(value: Tensor, shape: Shape) -> Tensor:
    """The middle of a larger kernel.

    >>> _center(torch.arange(25.0).view(1, 1, 5, 5), (1, 1, 1, 1)).item()
    12.0
    """
    for dimension in range(2, value.ndim):
        cut = (value.shape[dimension] - shape[dimension]) // 2
        value = value.narrow(dimension, cut, shape[dimension])
    return value


def _check_names(arch: Arch, state: State, wanted: Mapping[str, object]) -> None:
    """Refuse a file that lacks a tensor, or has one that is none of a deeper network of the kind."""
    missing = next((key for key in wanted if key not in state), None)
    if missing is not None:
        raise InputError(f"must hold {missing}, which is missing")
    for key in state:
        if key not in wanted and key not in CLASSIFIER and not _of_a_later_block(arch, key):
            raise InputError(f"unexpected key {key}")


def _of_a_later_block(arch: Arch, key: str) -> bool:
    place, *numbers = key.split(".")[:3]
    if place != "blocks" or len(numbers) != 2 or not all(n.isascii() and n.isdigit() and len(n) < 4 for n in numbers):
        return False
    stage, block = map(int, numbers)
    return stage < len(arch.stages) and block >= len(arch.stages[stage])
