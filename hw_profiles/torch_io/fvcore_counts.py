"""MACs and parameters of a module as fvcore counts them, to check our own counts by."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from hw_profiles.torch_io.timm_models import timm_module

_COUNTED = ("conv", "linear", "matmul", "addmm", "einsum", "bmm", "mm")  # what Workload.macs counts


@dataclass(frozen=True, kw_only=True, slots=True)
class FvcoreCounts:
    """Multiply-accumulate operations of convolutions, linear layers and matrix products for one image, and the number
    of trainable parameters."""

    macs: int
    params: int


def fvcore_counts(model: nn.Module | str, input_shape: tuple[int, ...]) -> FvcoreCounts:
    """Count a module, or a model of timm by its name, with fvcore's ``FlopCountAnalysis``, for one image (C, H, W).

    Raises:
        InputError: timm has no such model, or not for this input.

    >>> fvcore_counts(nn.Conv2d(3, 8, 3, bias=False), (3, 10, 10))
    FvcoreCounts(macs=13824, params=216)
    """
    from fvcore.nn import FlopCountAnalysis

    with _separate_attention():
        module = timm_module(model, input_shape) if isinstance(model, str) else model
        analysis = FlopCountAnalysis(module.eval(), torch.zeros(1, *input_shape)).unsupported_ops_warnings(False)
        by_operator = analysis.by_operator()
    return FvcoreCounts(
        macs=int(sum(by_operator[name] for name in _COUNTED)),
        params=sum(parameter.numel() for parameter in module.parameters()),
    )


@contextmanager
def _separate_attention() -> Iterator[None]:
    """Within it, timm makes attention of matrix products, which fvcore counts; it does not know the fused operation."""
    from timm.layers.config import set_fused_attn, use_fused_attn

    log = logging.getLogger("fvcore")
    fused, level = use_fused_attn(), log.level
    set_fused_attn(False)
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        set_fused_attn(fused)
        log.setLevel(level)
