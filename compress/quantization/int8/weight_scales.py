"""The scales of weights."""

from __future__ import annotations

import numpy as np

from compress.quantization.int8.activation_stats import Floats
from hw_profiles.network.quantization import Scales, weight_scales

_LARGEST_BIAS = 2.0**30  # in steps: a channel that hardly anything writes must not lose its bias to saturation


def fitting_scales(weight: Floats, bias: Floats | None, input_scale: float, per_channel: bool) -> Scales:
    """The largest magnitude is 127, unless the bias needs larger steps to be an int32."""
    scales = weight_scales(weight)
    if bias is not None:
        scales = np.maximum(scales, np.abs(bias) / np.float32(_LARGEST_BIAS * input_scale)).astype(np.float32)
    return scales if per_channel else np.asarray(scales.max(), np.float32)
