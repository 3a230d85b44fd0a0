"""Converts a user's `model` and `data` arguments into an Artifact and a Dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized

from compress.data.class_order import in_order_of
from compress.data.dataset import Dataset, load_data
from compress.data.in_memory import arrays_dataset
from compress.data.network_inputs import NetworkInputs, picture_record
from compress.data.preprocessing import METADATA_KEY, Preprocessing
from compress.data.unknown_preprocessing import UnknownPreprocessing
from compress.networks.artifact import Artifact
from compress.networks.module_copy import copied
from compress.networks.network_source import GivenModule, OnnxFile, Timm, nothing_changed
from compress.networks.timm_network import timm_for, timm_of, trained_shape
from compress.networks.weight_layers import WeightLayer
from hw_profiles.errors import InputError, first_line
from hw_profiles.profiling import is_onnx_path
from hw_profiles.torch_io.timm_models import check_timm_name
from search_spaces.arch import Arch
from search_spaces.model import build_model

Model = nn.Module | Arch | Artifact | str | Path
Data = Dataset | str | Path | tuple[Any, Any]
Shape = tuple[int, int, int]
Sides = Shape | Mapping[str, tuple[int, ...]]
"""(C, H, W), or of several tensors {name: sides}."""


def as_dataset(data: Data, seed: int = 0) -> Dataset:
    """A Dataset itself, what ``--data`` takes, or (images, labels), see :func:`compress.data.in_memory.arrays_dataset`.

    Raises:
        InputError: none of them, or images that cannot be used.

    >>> as_dataset("digits").num_classes
    10
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Path):
        return load_data(str(data), seed=seed)
    if isinstance(data, tuple) and len(data) == 2:
        return arrays_dataset(*data, seed=seed)
    raise InputError(
        "data must be a Dataset, digits, a folder, a zip or tar, an .npz file, torchvision:NAME or (images, labels) "
        f"for what trains, which needs labels; got {type(data).__name__}"
    )


def as_artifact(
    model: Model, data: Dataset | None, *, input_shape: Sides | None = None, trains: bool = False
) -> Artifact:
    """Any model as an artifact that reads images as ``data`` makes them, or as the model itself says.

    An Arch that names no file of weights gets random ones. A name of timm comes with timm's weights; where the data
    have other classes and the call ``trains``, with a new classifier. A module is copied; one that timm made is known
    again. Where no size is given, it is that of ``data``.

    Raises:
        InputError: not a model, no such name or file, or a model for other channels or classes than the data's.

    >>> from search_spaces import preset
    >>> as_artifact(preset("resnet8"), None).precision
    'fp32'
    """
    shape = input_shape or (data.preprocessing.input_shape if data is not None else None)
    takes_several = isinstance(model, nn.Module | Artifact) or onnx_path(model) is not None
    if isinstance(shape, Mapping) and not takes_several:
        raise InputError(f"several inputs by name are for ONNX files and modules, got {', '.join(shape)}")
    if isinstance(model, Artifact):
        found = model
    elif isinstance(model, Arch):
        found = _artifact(model, build_model(model))
    elif isinstance(model, nn.Module):
        found = _of_module(model, shape)
    elif isinstance(model, str | Path):
        found = _of_name(str(model), data, input_shape, trains=trains)
    else:
        raise InputError(
            "model must be a module, an Arch, an Artifact, a timm model name or the path of an ONNX file, "
            f"got {type(model).__name__}"
        )
    if input_shape is not None:
        found = with_input_shape(found, input_shape)
    return found if data is None else _reading(found, data)


def is_model(model: object) -> TypeGuard[Model]:
    """Whether it may be what :func:`as_artifact` takes.

    >>> is_model("resnet18"), is_model(3)
    (True, False)
    """
    return isinstance(model, nn.Module | Arch | Artifact | str | Path)


def onnx_path(model: object) -> Path | None:
    """The path of a model that is given as an ONNX file, a Path or text that ends in .onnx; None for any other.

    >>> onnx_path("net.onnx"), onnx_path("resnet18")
    (PosixPath('net.onnx'), None)
    """
    return Path(model) if isinstance(model, str | Path) and is_onnx_path(model) else None


def with_input_shape(artifact: Artifact, input_shape: Sides) -> Artifact:
    """The artifact of a model that reads images of any size, for this size (channels, height, width).

    Raises:
        InputError: the model has another size, which is its own.
    """
    network = artifact.network
    may_change = isinstance(artifact.preprocessing, UnknownPreprocessing) or network.stated_shape is None
    resized = network.resized(input_shape) if may_change else None
    if resized is not None:
        return replace(artifact, source=resized)
    if tuple(input_shape) != network.input_shape:
        raise InputError(
            f"input_shape must be that of the network, {network.input_shape}, or left out, got {input_shape}"
        )
    return artifact


def fitted(data: Dataset, artifact: Artifact) -> Dataset:
    """The data at the size that the artifact reads, made into its input as the artifact says.

    Raises:
        InputError: other channels or classes.
    """
    channels, height, width = artifact.source.input_shape
    name = artifact.network.label
    if channels != data.preprocessing.channels:
        raise InputError(
            f"{name} reads {channels} channels, the images of {data.name} have {data.preprocessing.channels}"
        )
    workload = artifact.workload()
    output_shape = workload.shapes[workload.output][1:]
    if len(output_shape) != 1:
        raise InputError(
            f"{name} must output one logit per class, shape (N, {data.num_classes}), got (N, *{output_shape})"
        )
    artifact.network.require_a_tensor()
    if output_shape[0] != data.num_classes:
        raise InputError(f"{name} has {output_shape[0]} classes, {data.name} has {data.num_classes}")
    resized = in_order_of(artifact.preprocessing.class_names, data.resized(height, width), name)
    record = replace(artifact.preprocessing, class_names=resized.preprocessing.class_names)
    return replace(resized, preprocessing=record)


def _reading(artifact: Artifact, data: Dataset) -> Artifact:
    """The artifact with the data's record, if it has none of its own."""
    record = data.preprocessing
    if isinstance(record, NetworkInputs):
        return replace(artifact, preprocessing=replace(record, stands_for=artifact.preprocessing))
    if not isinstance(artifact.preprocessing, UnknownPreprocessing):
        return artifact
    in_bytes = isinstance(artifact.source, OnnxFile) and artifact.source.reads_bytes
    found = picture_record(record, artifact.source.input_shape, in_bytes=in_bytes)
    return replace(artifact, preprocessing=found or record)


def _artifact(source: Arch | Timm | GivenModule, module: nn.Module) -> Artifact:
    return Artifact(source=source, weights={}, preprocessing=UnknownPreprocessing()).with_model(module)


def _of_module(module: nn.Module, shape: Sides | None) -> Artifact:
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    _check_plain(module)
    if any(parameter.device.type != "cpu" for parameter in module.parameters()):
        module = copied(module).cpu()
    source = None
    if not isinstance(shape, Mapping):
        source = timm_of(module, shape or trained_shape(module) or (3, 224, 224))
    frozen = any(not parameter.requires_grad for parameter in module.parameters())  # a name would forget that
    if source is not None and not frozen and _is_made_by(source, module):
        return _artifact(source, module)
    own = copied(module).eval().cpu()
    return _artifact(GivenModule(module=own, stated_shape=shape), own)


def _check_plain(module: nn.Module) -> None:
    """Raise an InputError where weights are not float32, not there, or computed of others in each pass."""
    if any(isinstance(each, torch.jit.ScriptModule) for each in module.modules()):
        raise InputError("a scripted module cannot be traced; give the module it was made of, or an ONNX file")
    for name, parameter in module.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise InputError(f"the module has no weights: {name} is of a lazy layer, run the module once first")
        if parameter.is_meta:
            raise InputError(f"the module has no weights: {name} is on the meta device")
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise InputError(f"a module must have float32 weights, {name} is {parameter.dtype}: call .float() first")
        _check_finite(name, parameter)
    for name, each in module.named_modules():
        _check_statistics(name, each)
        hooked = isinstance(each, WeightLayer) and "weight" not in dict(each.named_parameters(recurse=False))
        if is_parametrized(each) or hooked:
            raise InputError(
                f"{name or 'the module'} uses weight parametrizations, which are not supported: "
                "call torch.nn.utils.parametrize.remove_parametrizations, remove_weight_norm or prune.remove first"
            )


def _check_finite(name: str, numbers: Tensor) -> None:
    if numbers.is_floating_point() and not bool(numbers.isfinite().all()):
        count = int(numbers.isfinite().logical_not().sum())
        raise InputError(
            f"a module must have finite weights, {name} has {count} of {numbers.numel()} that are NaN or infinite: "
            "load the weights from before the training diverged"
        )


def _check_statistics(name: str, norm: nn.Module) -> None:
    """Raise an InputError for a normalization whose mean or variance no images can have."""
    for kind in ("running_mean", "running_var"):
        numbers = getattr(norm, kind, None)
        if isinstance(numbers, Tensor) and not numbers.is_meta:
            _check_finite(f"{name}.{kind}", numbers)
            if kind == "running_var" and bool((numbers < 0).any()):
                raise InputError(
                    f"a variance must be at least 0, {name}.running_var has {float(numbers.min()):g}: its statistics "
                    "were overwritten; load them again"
                )


def _is_made_by(source: Timm, module: nn.Module) -> bool:
    try:
        again = source.build()
        again.load_state_dict(module.state_dict())
    except (RuntimeError, ValueError):
        return False
    return nothing_changed(again, module, source.input_shape)


def _of_name(name: str, data: Dataset | None, input_shape: Sides | None, *, trains: bool) -> Artifact:
    if onnx_path(name) is not None:
        file = _opened(name, input_shape or (data.preprocessing.input_shape if data is not None else None))
        text = file.metadata.get(METADATA_KEY)
        record = UnknownPreprocessing() if text is None else Preprocessing.from_json(text)
        return Artifact(source=file, weights={}, preprocessing=record)
    return _pretrained(name.removeprefix("timm:"), data, input_shape, trains=trains)


def _opened(name: str, shape: Sides | None) -> OnnxFile:
    """The file at its own size, at ``shape`` where it leaves that open."""
    file = OnnxFile.read(name)
    try:
        file.workload()
    except ValueError:
        return OnnxFile.read(name, shape)
    return file


def _pretrained(name: str, data: Dataset | None, input_shape: Sides | None, *, trains: bool) -> Artifact:
    import timm

    check_timm_name(name)
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not timm.is_model_pretrained(name):
        raise InputError(f"timm:{name}: timm has no weights for it; give a module, or an Arch to be trained")
    channels, height, width = cfg.input_size
    shape = input_shape or ((channels, height, width) if data is None else data.preprocessing.input_shape)
    assert not isinstance(shape, Mapping)  # as_artifact refuses several inputs
    source = timm_for(name, shape, data.num_classes if trains and data is not None else None)
    options: dict[str, Any] = dict(source.kwargs)
    try:
        module = timm.create_model(name, pretrained=True, **options)
    except (OSError, RuntimeError) as error:
        reason = first_line(error)
        raise InputError(
            f"timm:{name}: its weights cannot be downloaded ({reason}); give a module that has them"
        ) from None
    artifact = _artifact(source, module)
    if data is None or shape[0] != len(cfg.mean):
        return artifact
    record = replace(data.preprocessing, mean=tuple(cfg.mean), std=tuple(cfg.std))
    return replace(artifact, preprocessing=record)
