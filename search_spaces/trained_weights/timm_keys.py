"""Maps the state-dict keys of timm's networks to ours."""

from __future__ import annotations

from hw_profiles.network.workload import WEIGHTED, Op, Shape
from search_spaces.arch import Arch

STEM = "conv_stem.weight"
CLASSIFIER = ("classifier.weight", "classifier.bias")
# For each kind of block: our part -> timm's convolution, and the batch normalization behind it where there is one.
_IN_STAGES: dict[str, dict[str, tuple[str, str]]] = {
    "conv": {"": ("conv", "bn1")},
    "separable": {
        "depthwise": ("conv_dw", "bn1"),
        "se.reduce": ("se.conv_reduce", ""),
        "se.expand": ("se.conv_expand", ""),
        "project": ("conv_pw", "bn2"),
    },
    "inverted_residual": {
        "expand": ("conv_pw", "bn1"),
        "depthwise": ("conv_dw", "bn2"),
        "se.reduce": ("se.conv_reduce", ""),
        "se.expand": ("se.conv_expand", ""),
        "project": ("conv_pwl", "bn3"),
    },
}
_OUTSIDE = {
    "stem": ("conv_stem", "bn1"),
    "head": ("conv_head", "bn2"),
    "head.conv": ("conv_head", ""),
    "classifier": ("classifier", ""),
}


def timm_keys(arch: Arch) -> dict[str, tuple[str, Shape]]:
    """timm's name of every tensor -> its name in ``build_model(arch)`` and its shape.

    Empty where timm has no such block. Counts of batches are left out.

    >>> from search_spaces import preset
    >>> timm_keys(preset("mobilenetv2_100"))["blocks.1.0.conv_dw.weight"]
    ('stages.1.0.depthwise.conv.weight', (96, 1, 3, 3))
    """
    kinds = {name: spec.kind for name, spec in arch.blocks()}
    keys: dict[str, tuple[str, Shape]] = {}
    for op in arch.workload().ops:
        if op.kind not in WEIGHTED:
            continue
        names = _timm_names(op.name, kinds)
        if names is None:
            return {}
        keys |= _tensors(op, *names)
    return keys


def _timm_names(name: str, kinds: dict[str, str]) -> tuple[str, str] | None:
    if not name.startswith("stages."):
        return _OUTSIDE.get(name)
    _, i, j, *part = name.split(".")
    found = _IN_STAGES.get(kinds[f"stages.{i}.{j}"], {}).get(".".join(part))
    if found is None:
        return None
    conv, norm = found
    return f"blocks.{i}.{j}.{conv}", norm and f"blocks.{i}.{j}.{norm}"


def _tensors(op: Op, conv: str, norm: str) -> dict[str, tuple[str, Shape]]:
    if not op.normalized:
        own: dict[str, tuple[str, Shape]] = {f"{conv}.weight": (op.weight, op.weight_shape)}
        return own | ({f"{conv}.bias": (op.bias_name, op.weight_shape[:1])} if op.bias else {})
    return {f"{conv}.weight": (f"{op.name}.conv.weight", op.weight_shape)} | {
        f"{norm}.{part}": (f"{op.name}.norm.{part}", op.weight_shape[:1])
        for part in ("weight", "bias", "running_mean", "running_var")
    }
