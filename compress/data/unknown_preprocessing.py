"""The preprocessing of a module for which none was given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compress.data.preprocessing import Preprocessing
from hw_profiles.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class UnknownPreprocessing(Preprocessing):
    """In the place of a record for a network that came without images; it makes no input and is written nowhere."""

    channels: int = 1
    sizes: tuple[tuple[int, int], ...] = ((1, 1),)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    class_names: tuple[str, ...] = ()

    def tensor(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Raises an InputError: the preprocessing is unknown."""
        raise InputError("the preprocessing of the model is unknown: pass data together with the model")

    def to_json(self) -> str:
        """Refuses: there is nothing to write."""
        raise InputError("the preprocessing of the model is unknown: pass data together with the model")
