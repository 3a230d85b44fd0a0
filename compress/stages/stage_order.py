"""All stages by name, the order in which they are run, and what is wrong with another one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from compress.clustering.cluster import Cluster
from compress.distillation.distill import Distill
from compress.fnz.encode_stage import Encode
from compress.pruning.prune import Prune
from compress.quantization.int8.ptq import Quantize
from compress.quantization.int8.qat import QuantizeAware
from compress.quantization.mixed_precision.mixed_precision import MixedPrecision
from compress.quantization.weight_only.binary import Binarize
from compress.quantization.weight_only.fp16 import Half
from compress.quantization.weight_only.int4 import Int4
from compress.sparsity.sparsify import Sparsify
from compress.stage_interface import Stage
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import did_you_mean

# In the order in which they make sense: architecture, pruning, zeros, then fewer bits in the file, integers, shared
# values, and the coding.
STAGES: dict[str, type[Stage]] = {
    "distill": Distill,
    "prune": Prune,
    "sparsify": Sparsify,
    "fp16": Half,
    "int4": Int4,
    "binary": Binarize,
    "int8": Quantize,
    "qat": QuantizeAware,
    "mixed": MixedPrecision,
    "cluster": Cluster,
    "encode": Encode,
}

_IN_INTEGERS, _IN_FLOAT = ("int8", "qat", "mixed"), ("fp16", "int4", "binary")
# Why a stage comes before those after it.
_REASONS = {
    "distill": "a teacher trains float weights, and later training would undo what other stages made of them",
    "prune": "channels that leave take their zeros, scales and shared values with them",
    "sparsify": "zeros are set in float weights; integers and shared values are fitted to what is left",
    "fp16": "shared values and coding read the stored weights",
    "int4": "shared values and coding read the stored weights",
    "binary": "shared values and coding read the stored weights",
    "int8": "training in integers, mixed precision and shared values begin with the scales of int8",
    "qat": "operations are chosen and values shared on the trained integers",
    "mixed": "values are shared in the precision in which an operation runs",
    "cluster": "coding counts the values that the weights take",
    "encode": "a coded file is not changed any more",
}


def check_order(names: Sequence[str], *, any_order: bool = False) -> None:
    """Raise an InputError unless the stages can be run one after the other as they are named.

    With ``any_order`` the order is not checked, so that what another one costs can be shown.

    >>> check_order(["prune", "int8", "encode"])
    >>> check_order(["int8", "prune"], any_order=True)
    """
    for name in names:
        if name not in STAGES:
            raise InputError(f"stages must be names of {', '.join(STAGES)}, got {name!r}{did_you_mean(name, STAGES)}")
    if {*names} & {*_IN_INTEGERS} and {*names} & {*_IN_FLOAT}:
        raise InputError(
            f"stages must not combine one of {', '.join(_IN_FLOAT)}, which store float weights in fewer bits, with one "
            f"of {', '.join(_IN_INTEGERS)}, which compute in 8-bit integers, got {', '.join(names)}"
        )
    if any_order:
        return
    order = list(STAGES)
    wrong = next(
        ((one, other) for one, other in itertools.pairwise(names) if order.index(one) >= order.index(other)), None
    )
    if wrong is None:
        return
    earlier, later = wrong
    why = (
        f"{later} is there twice" if earlier == later else f"{later} comes before {earlier}, because {_REASONS[later]}"
    )
    raise InputError(f"stages must each be given once, in the order {', '.join(order)}, got {', '.join(names)}: {why}")
