"""Maps the state-dict keys of EfficientNet-PyTorch and the packages after it to timm's."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from search_spaces.arch import Arch

_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
# For each kind of block: their part -> timm's.
_IN_BLOCKS = {
    "separable": {
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn1",
        **_SQUEEZE,
        "_project_conv": "conv_pw",
        "_bn2": "bn2",
    },
    "inverted_residual": {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        **_SQUEEZE,
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    },
}


def with_timm_keys(state: Mapping[str, Tensor], arch: Arch) -> dict[str, Tensor]:
    """The tensors under timm's names; a name that the network has no place for stays as it is.

    These packages number the blocks through all stages: ``_blocks.3`` of EfficientNet is ``blocks.2.0`` of timm's.

    >>> import torch
    >>> from search_spaces import preset
    >>> list(with_timm_keys({"_blocks.3._bn0.bias": torch.zeros(1)}, preset("tf_efficientnet_lite0")))
    ['blocks.2.0.bn1.bias']
    """
    places = _module_names(arch)
    renamed = {}
    for key, value in state.items():
        module, _, part = key.rpartition(".")
        renamed[f"{places[module]}.{part}" if module in places else key] = value
    return renamed


def _module_names(arch: Arch) -> dict[str, str]:
    """Their name of each module -> timm's."""
    names = dict(_OUTSIDE)
    blocks = [(f"blocks.{i}.{j}", spec) for i, stage in enumerate(arch.stages) for j, spec in enumerate(stage)]
    for number, (place, spec) in enumerate(blocks):
        names |= {
            f"_blocks.{number}.{theirs}": f"{place}.{ours}" for theirs, ours in _IN_BLOCKS.get(spec.kind, {}).items()
        }
    return names
