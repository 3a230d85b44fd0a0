"""Tensor formats of weights of which some are zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hw_profiles.network.tensor_formats import FLOAT32, TensorFormat


def zeros_alone(formats: Mapping[str, TensorFormat]) -> dict[str, TensorFormat]:
    """What is still true of weights that become 8-bit integers: zeros stay zeros; shared values and those of fewer bits
    become integers of their own.

    >>> zeros_alone({"a": replace(FLOAT32, density=0.5), "b": replace(FLOAT32, codebook=16)}).keys()
    dict_keys(['a'])
    """
    return {name: f for name, f in formats.items() if f.bits == FLOAT32.bits and not f.codebook}


def sparse_format(share: float) -> TensorFormat:
    """Of a weight of which a share is not zero.

    >>> sparse_format(0.5).density
    0.5
    """
    return replace(FLOAT32, density=max(share, 1e-9))
