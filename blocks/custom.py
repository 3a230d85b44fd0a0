"""Blocks registered by users, by kind. Needs no torch: a search that only counts costs does not load it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from blocks.spec import BlockSpec

if TYPE_CHECKING:
    from torch import nn


class BlockClass(Protocol):
    """What makes a module from a spec: (N, in_channels, H, W) -> (N, out_channels, ~H/stride, ~W/stride)."""

    def __call__(self, spec: BlockSpec, /) -> nn.Module:
        """The module of a spec."""


CUSTOM_BLOCKS: dict[str, BlockClass] = {}
REGISTERED_BY: dict[str, str] = {}
"""The module that registered a kind, which another process must import to know it."""


def unknown_kind(kind: str, valid: Iterable[str]) -> str:
    """What to say about a kind that no block has.

    >>> unknown_kind("dense", ["conv", "residual"])
    "BlockSpec.kind must be one of conv, residual, or registered by search_spaces.register_block first, got 'dense'"
    """
    return (
        f"BlockSpec.kind must be one of {', '.join(valid)}, or registered by search_spaces.register_block first, "
        f"got {kind!r}"
    )
