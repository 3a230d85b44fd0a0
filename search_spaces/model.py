"""Builds the module of an Arch."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from blocks.registry import build_block
from search_spaces.arch import Arch
from search_spaces.trained_weights.slicing import sliced_weights


class Classifier(nn.Module):
    """Stem, stages, head, global mean unless the head pools, linear.

    (N, C, H, W) normalized images -> (N, num_classes) logits.
    """

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.stem = build_block(arch.stem)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(OrderedDict((str(j), build_block(s)) for j, s in enumerate(stage)))
                for stage in arch.stages
            )
        )
        self.head_pools = arch.head_pools
        self.head = build_block(arch.head) if arch.head is not None else nn.Identity()
        self.classifier = nn.Linear(arch.features, arch.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of normalized images."""
        features = self.head(self.stages(self.stem(x)))
        if not self.head_pools:
            features = nn.functional.adaptive_avg_pool2d(features, 1)
        logits: Tensor = self.classifier(features.flatten(1))
        return logits


def build_model(arch: Arch, *, seed: int = 0) -> Classifier:
    """Build the trainable module of an Arch, with randomly initialized weights (from its own generator), or with those
    of ``arch.weights``, of which a narrower or shallower network takes its part.

    Raises:
        InputError: ``arch.weights`` is not a file of timm's weights for this network or a larger one.

    >>> from search_spaces import preset
    >>> build_model(preset("resnet8")).eval()(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """
    model = Classifier(arch)
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            nn.init.normal_(module.weight, 0.0, (2.0 / fan_out) ** 0.5, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01, generator=generator)
            nn.init.zeros_(module.bias)
    if arch.weights is not None:
        model.load_state_dict(sliced_weights(arch, arch.weights), strict=False)
    return model
