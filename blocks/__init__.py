"""Building blocks: BlockSpec is data and needs no torch; ``build_block`` makes the module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocks.spec import BlockSpec

if TYPE_CHECKING:
    from blocks.registry import BLOCKS, build_block

__all__ = ["BLOCKS", "BlockSpec", "build_block"]


def __getattr__(name: str) -> Any:
    if name in ("BLOCKS", "build_block"):
        from blocks import registry

        return getattr(registry, name)
    raise AttributeError(f"module 'blocks' has no attribute {name!r}")
