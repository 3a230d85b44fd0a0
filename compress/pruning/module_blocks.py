"""The residual blocks of any module: parts whose input can take the place of their output."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from compress.networks.module_copy import copied
from compress.networks.slice_channels import REMOVED, cut_module
from hw_profiles.network.workload import InputShape, Workload
from hw_profiles.torch_io.trace import run_once


def module_blocks(model: nn.Module, workload: Workload, input_shape: InputShape) -> list[str]:
    """The places of the blocks without which the module runs and makes an output of the same shape. A block is what a
    Sequential or ModuleList has several of, one that adds the one tensor that it reads.

    >>> module_blocks(nn.Sequential(nn.Conv2d(3, 4, 1)), Workload("x", "x", (), {"x": (1, 3, 2, 2)}), (3, 2, 2))
    []
    """
    with torch.inference_mode():
        made = run_once(copied(model), input_shape).shape
        return [place for place in _residual_blocks(model, workload) if _runs(model, place, input_shape, made)]


def _residual_blocks(model: nn.Module, workload: Workload) -> Iterator[str]:
    for name, parent in model.named_modules():
        if isinstance(parent, nn.Sequential | nn.ModuleList):
            blocks = [f"{name}.{key}".lstrip(".") for key, block in parent.named_children() if list(block.children())]
            yield from (block for block in blocks if len(blocks) > 1 and _has_identity_shortcut(workload, block))


def _has_identity_shortcut(workload: Workload, place: str) -> bool:
    """Whether a part reads one tensor, which it also adds, and makes one of the same shape."""
    inside = {op.name: op for op in workload.ops if op.name.startswith(f"{place}.")}
    read = {name for op in inside.values() for name in op.inputs if name not in inside}
    outside = [name for op in workload.ops if op.name not in inside for name in op.inputs]
    made = {name for name in (*outside, *workload.outputs) if name in inside}
    if len(read) != 1 or len(made) != 1 or workload.shapes[min(read)] != workload.shapes[min(made)]:
        return False
    return any(op.kind == "add" and min(read) in op.inputs for op in inside.values())


def _runs(model: nn.Module, place: str, input_shape: InputShape, made: torch.Size) -> bool:
    """Whether the module runs without a block, which some call with more than a tensor."""
    try:
        return bool(run_once(cut_module(copied(model), {place + REMOVED: ()}), input_shape).shape == made)
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, IndexError):
        return False
