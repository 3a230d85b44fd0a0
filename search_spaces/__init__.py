"""What may be built: Archs, the spaces that hold them, known networks. Only ``build_model`` and weights
need torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search_spaces.arch import Arch
from search_spaces.lowering import register_block
from search_spaces.presets import list_presets, preset
from search_spaces.pretrained import pretrained_space
from search_spaces.registry import SPACES, list_spaces, load_space, sample
from search_spaces.space import Space

if TYPE_CHECKING:
    from search_spaces.identify import identify_weights
    from search_spaces.model import build_model

__all__ = [
    "SPACES",
    "Arch",
    "Space",
    "build_model",
    "identify_weights",
    "list_presets",
    "list_spaces",
    "load_space",
    "preset",
    "pretrained_space",
    "register_block",
    "sample",
]


def __getattr__(name: str) -> Any:
    if name == "build_model":
        from search_spaces.model import build_model

        return build_model
    if name == "identify_weights":
        from search_spaces.identify import identify_weights

        return identify_weights
    raise AttributeError(f"module 'search_spaces' has no attribute {name!r}")
