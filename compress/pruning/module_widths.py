"""The operations of a module at other widths of its groups of channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compress.networks.module_copy import copied
from compress.networks.slice_channels import cut_module
from compress.pruning.channel_groups import Groups, kept_channels
from hw_profiles.errors import InputError
from hw_profiles.network.workload import InputShape, Op, Workload
from hw_profiles.torch_io.trace import trace


class ModuleWidths:
    """The workload of a module once its groups have other widths: each side of a tensor is a sum of widths, so one
    few traces of narrower modules tell them all. Traced when it is called first.

    Raises:
        InputError: when called: a module that cannot be traced, or that takes other ways where it is narrower.

    >>> from compress.pruning.module_groups import find_groups
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    >>> at = ModuleWidths(net, find_groups(net, (3, 8, 8)).groups, (3, 8, 8))
    >>> [op.weight_shape for op in at({"0": 5}).ops if op.weight_shape]
    [(5, 3, 3, 3), (2, 5, 1, 1)]
    """

    def __init__(self, model: nn.Module, groups: Groups, input_shape: InputShape) -> None:
        self._model, self._groups, self._input_shape = model, groups, input_shape
        self._whole: Workload | None = None

    def __call__(self, width: Mapping[str, int]) -> Workload:
        """The workload at these widths of all groups."""
        if self._whole is None:
            self._whole, self._sides, self._changes = self._traced()
        gone = [group.width - width[name] for name, group in self._groups.items()]
        sides = iter((self._sides - np.array(gone) @ self._changes).tolist())
        shapes = {name: tuple(islice(sides, len(shape))) for name, shape in self._whole.shapes.items()}
        return replace(self._whole, ops=tuple(_narrowed(op, sides) for op in self._whole.ops), shapes=shapes)

    def _traced(self) -> tuple[Workload, NDArray[np.int64], NDArray[np.int64]]:
        """The workload, its sides, and how many of each leave with one unit of each group.

        Half of the groups are narrowed at once, those whose number has a bit, then the others: a side that always
        changes in one of the two alone depends on one group, whose number these bits are. Groups that any other side
        may depend on are narrowed alone.
        """
        empty = copied(self._model).to("meta")
        whole = trace(empty, self._input_shape)
        sides = _sides(whole)
        count = len(self._groups)
        numbers, bits = np.arange(count), range(max(1, (count - 1).bit_length()))

        def gone(some: NDArray[np.bool_]) -> NDArray[np.int64]:
            return sides - _sides(self._narrower(empty, some, whole))

        halves = np.array([[gone(numbers >> bit & 1 == value) for value in (0, 1)] for bit in bits])
        total = halves[0].sum(0)
        alone = ((halves == 0) | (halves == total)).all((0, 1)) & (halves.sum(1) == total).all(0)
        owner = ((halves[:, 1] > 0) * (1 << np.array(bits))[:, None]).sum(0)
        changes = np.where(alone & (numbers[:, None] == owner), total, 0)
        for number in numbers if not alone.all() else ():
            possible = [halves[bit, number >> bit & 1] > 0 for bit in bits]
            if (np.logical_and.reduce(possible) & ~alone).any():
                changes[number] = gone(numbers == number)
        return whole, sides, changes

    def _narrower(self, empty: nn.Module, some: NDArray[np.bool_], whole: Workload) -> Workload:
        """The workload where some groups have one unit less."""
        groups = {name: group for (name, group), less in zip(self._groups.items(), some, strict=True) if less}
        chosen = {name: torch.arange(min(1, group.width - 1), group.width) for name, group in groups.items()}
        cut = cut_module(copied(empty), kept_channels(groups, empty, chosen))
        less = trace(cut, self._input_shape)
        if [op.name for op in less.ops] != [op.name for op in whole.ops]:
            raise InputError(
                f"{type(self._model).__name__}: cannot be narrowed, because its computation depends on "
                f"the number of channels"
            )
        return less


def _sides(workload: Workload) -> NDArray[np.int64]:
    of_ops = (number for op in workload.ops for number in (*op.weight_shape, op.groups))
    return np.array([*chain.from_iterable(workload.shapes.values()), *of_ops], np.int64)


def _narrowed(op: Op, sides: Iterator[int]) -> Op:
    weight_shape, groups = tuple(islice(sides, len(op.weight_shape))), next(sides)
    return (
        op
        if (weight_shape, groups) == (op.weight_shape, op.groups)
        else replace(op, weight_shape=weight_shape, groups=groups)
    )
