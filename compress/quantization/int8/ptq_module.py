"""Stages on networks that are no Arch: their file is changed, or their module by the graph of its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from compress.networks.artifact import Artifact
from compress.networks.network_source import GivenModule, Source, Timm, require_arch
from compress.networks.onnx_export import onnx_bytes
from compress.networks.onnx_weights import with_int8_file
from compress.pruning.prune import Prune
from compress.quantization.int8.ptq import Quantize
from compress.quantization.int8.ptq_onnx import quantize_onnx
from compress.stage import Context


def quantized_file(artifact: Artifact, stage: Quantize, context: Context) -> Artifact:
    """The artifact with its file in 8-bit integers, its ranges from training images.

    Raises:
        ValueError: an option that is for an Arch only, or a file that cannot be quantized.
    """
    for name in ("equalize", "bias_correction", "adaround"):
        if getattr(stage, name) not in (None, False, "none"):
            require_arch(f"Quantize.{name}", artifact.source)
    split = context.data.train.some(2 * stage.images, context.seed)  # one half to calibrate, the other to choose by
    data = quantize_onnx(
        onnx_bytes(artifact),
        artifact.preprocessing.tensor(split.images),
        calibration=stage.calibration,
        activations=stage.activations_on(context.device),
        per_channel=stage.per_channel,
        labels=split.labels,
    )
    return with_int8_file(artifact, data)


def pruned_module(artifact: Artifact, stage: Prune, context: Context) -> Artifact:
    """The artifact without the channels that matter least, trained on; the unpruned module teaches.

    Raises:
        ValueError: an ONNX file, or a limit that cannot be reached.
    """
    from compress.pruning.module_pruning import prune_module

    lessons = stage.lessons(artifact, context)
    found = prune_module(
        artifact.model(),
        artifact.source.input_shape,
        context.device,
        data=context.data,
        recover=lessons,
        **stage.of_modules(),
    )
    smaller = replace(artifact, source=_narrower(artifact.source, found.model, found.kept))
    return replace(smaller.with_model(found.model), metrics={} if lessons is None else lessons.metrics())


def _narrower(source: Source, module: nn.Module, kept: Mapping[str, Sequence[int]]) -> Source:
    """The source with the channels of the network as it was made that are left."""
    if isinstance(source, GivenModule):
        return replace(source, module=module)
    assert isinstance(source, Timm)
    before = source.kept
    now = {
        name: tuple(before[name][i] for i in channels) if name in before else tuple(channels)
        for name, channels in kept.items()
    }
    return replace(source, kept={**before, **now})
