"""Costs of a machine of which nothing is known: MACs, values and weights cost the same in all kernels."""

from __future__ import annotations

from collections.abc import Mapping

from hw_profiles.cost_model.features import QUANTITIES, family
from hw_profiles.cost_model.kernel_costs import KernelCost

# Microseconds of a kernel's start, and of a million MACs, values and weights. Only their ratios matter: they are about
# those of the devices that ship with costs fitted to ncnn's published benchmarks.
_START, _MACS, _VALUES, _WEIGHTS = 0.1, 1.0, 40.0, 10.0
_DEPTHWISE = 4.0  # of a MAC whose operands are used once
_FIRST = 4.0  # of a MAC of a convolution that has an image's few channels to add up
_CALL = 50 * _START  # seen: from nothing to a hundred million MACs
_LANES = 16


def plain_costs(costs: Mapping[str, KernelCost], precision: str) -> dict[str, KernelCost]:
    """Costs of the same kinds of kernels where nothing but the size of a kernel counts. The points of corrections stay,
    with corrections of nothing, so that measurements can say what kernels of a place cost.

    >>> known = KernelCost(coefficients=(3.0, 2.0, 7.0, 7.0))
    >>> plain_costs({"layer/conv": known}, "int8")["layer/conv"].coefficients
    (0.1, 1.0, 20.0, 10.0)
    """
    bytes_per_number = 4 if precision == "fp32" else 1
    return {
        kind: KernelCost(
            coefficients=_coefficients(kind, bytes_per_number), points=cost.points, weights=(0.0,) * len(cost.points)
        )
        for kind, cost in costs.items()
    }


def _coefficients(kind: str, bytes_per_number: int) -> tuple[float, ...]:
    of_family, moved = family(kind), _VALUES / 2 / bytes_per_number
    macs = _MACS * (_DEPTHWISE if "depthwise" in kind else _FIRST if "first" in kind else 1.0)
    known = {
        "start": _CALL if of_family == "call" else _START,
        "nodes": _START / 10,
        "mmacs": macs * (_LANES if of_family == "integer_depthwise" else 1.0),
        "mmacs_half": macs * _LANES / 2,
        "mmacs_rest": macs,
        "mvalues": _VALUES,
        "input_mb": moved,
        "output_mb": moved,
        "moved_mb": moved,
        "weight_mb": _WEIGHTS / bytes_per_number,
    }
    return tuple(known.get(name, 0.0) for name in QUANTITIES[of_family])
