"""The scales of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from compress.quantization.int8.activation_stats import Floats
from hw_profiles.network.quantization import LARGEST_WEIGHT, Scales, weight_scales

_LARGEST_BIAS = 2.0**30  # in steps: a channel that hardly anything writes must not lose its bias to saturation


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightGrid:
    """Which integers weights become: one scale per output channel, or one per weight tensor; ``levels``: how many
    integers those of an operation may take, by its name, 255 where it is not named."""

    per_channel: bool = True
    levels: Mapping[str, int] = field(default_factory=dict)

    def scales(self, name: str, weight: Floats, bias: Floats | None, input_scale: float) -> Scales:
        """The largest magnitude is the largest integer, unless the bias needs larger steps to be an int32.

        >>> WeightGrid(levels={"a": 15}).scales("a", np.float32([[-3.5, 7.0]]), None, 1.0).round(3).tolist()
        [1.0]
        """
        scales = weight_scales(weight)
        if name in self.levels:
            scales = scales * np.float32(LARGEST_WEIGHT / (self.levels[name] // 2))
        if bias is not None:
            scales = np.maximum(scales, np.abs(bias) / np.float32(_LARGEST_BIAS * input_scale)).astype(np.float32)
        return scales if self.per_channel else np.asarray(scales.max(), np.float32)


BYTES = WeightGrid()
"""All integers of a byte, one scale per output channel."""
