"""The accuracy gain expected from a longer training."""

from __future__ import annotations

import math


def gain_of_twice_the_time(early: tuple[float, float], late: tuple[float, float], images: int) -> float:
    """Points of accuracy that twice the time of training is expected to bring.

    ``early`` and ``late`` are (seconds of training, accuracy 0..1); the error is taken to fall as a power of the time
    (Hestness et al., 1712.00409, have seen it do so), with one error more on so many ``images`` than was counted, so
    that no errors are not taken for certainty.

    >>> round(gain_of_twice_the_time((10, 0.8), (160, 0.95), 1000), 1)
    1.5
    """
    (early_seconds, early_accuracy), (late_seconds, late_accuracy) = early, late
    before, after = 1 - early_accuracy + 1 / images, 1 - late_accuracy + 1 / images
    if late_seconds <= early_seconds or before <= after:
        return 0.0
    power = math.log(before / after) / math.log(late_seconds / early_seconds)
    return 100 * after * (1 - 2**-power)
