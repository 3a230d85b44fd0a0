"""One-line functions that make any model smaller: quantize, prune, distill, sparsify, cluster, encode.

``model`` is a module, an Arch, an Artifact, a name of timm or the path of an ONNX file (where nothing is trained);
``data`` a Dataset, what ``--data`` takes, or (images, labels), see
:func:`compress.networks.as_artifact.as_dataset`; where nothing is trained, also images without labels, in an array, a
folder or batches, see :func:`compress.networks.calibration_data.calibration_dataset`. All return an :class:`Artifact`:
``.model()`` is the float32 module, :func:`compress.export_onnx` writes the file that runs, and with images ``.metrics``
compares its outputs with those of the file before: the signal-to-noise ratio in decibels, the share of images
that get the same class, and with labels the accuracy of both on validation images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from compress.clustering.cluster import Cluster
from compress.data.dataset import Dataset, Split
from compress.data.network_inputs import NetworkInputs
from compress.distillation.distill import Distill
from compress.distillation.ensemble import Ensemble
from compress.fnz.files import Encoded, decode_file, encode_file
from compress.networks.artifact import Artifact
from compress.networks.as_artifact import Data, Model, Shape, as_artifact, as_dataset, fitted, is_model, onnx_path
from compress.networks.calibration_data import GIVEN, Inputs, calibration_dataset, fitted_inputs, of_one_input
from compress.networks.onnx_export import onnx_bytes, onnx_outputs
from compress.pruning.prune import Prune
from compress.quantization.int8.fidelity import tells_classes
from compress.quantization.int8.ptq import Quantize
from compress.quantization.int8.qat import QuantizeAware
from compress.quantization.mixed_precision.mixed_precision import MixedPrecision, check_budget
from compress.quantization.precisions import Precision, check_needs_no_images, stage_of
from compress.quantization.weight_only.binary import Binarize
from compress.quantization.weight_only.int4 import Int4
from compress.sparsity.sparsify import Sparsify
from compress.stage_interface import Context
from compress.training.evaluation import accuracy, signal_to_noise_db
from compress.training.teachers import ModuleTeacher, OnnxTeacher, Teacher, pixels_of
from compress.training.torch_settings import usual_torch_settings
from hw_profiles.budget import Budget
from hw_profiles.devices.device_file import load_device
from hw_profiles.errors import InputError

_JUDGED_IMAGES = 1000


@usual_torch_settings()
def quantize(
    model: Model,
    data: Inputs | None = None,
    config: Precision | None = None,
    *,
    precision: str | None = None,
    device: str = "host",
    budget: Budget | None = None,
    seed: int = 0,
) -> Artifact:
    """Quantize a model, by default to int8 with scales calibrated on ``data``.

    Args:
        model: a torch module, an Arch, an Artifact, a timm model name, or the path of an ONNX file. ONNX files are not
            accepted by methods that train.
        data: images as an array or a folder, raw inputs as floats, inputs by name, or batches
            (:func:`compress.networks.calibration_data.calibration_dataset`). Labels are needed only for methods that
            train. ``"fp16"`` and ``"int4"`` need no data.
        config: the configuration of the method, for more options; its class implies ``precision``.
        precision: one of

            - ``"int8"``: weights and activations (:class:`compress.Quantize`). If neither ``precision`` nor ``config``
              is given and labeled images show that more than a point of accuracy is lost, ``"mixed"`` follows.
            - ``"qat"``: the same with quantization-aware training (:class:`compress.QuantizeAware`); for an Arch, or a
              module of convolutions, activations, sums and pools.
            - ``"mixed"``: like int8, but the most sensitive layers stay in float (:class:`compress.MixedPrecision`); as
              many layers are quantized as ``budget`` requires on ``device``.
            - ``"fp16"``, ``"int4"`` (:class:`compress.Half`, :class:`compress.Int4`): weights are stored in fewer bits
              and computed with in float32.
            - ``"binary"``: weights are stored in one bit, after training (:class:`compress.Binarize`).
        device: name of the device for which ``"mixed"`` chooses the layers.
        budget: limits that the result must meet.
        seed: random seed of the splits and of training.

    Returns:
        The quantized model. Its ``metrics`` hold the accuracy before and after, the number of samples that were given,
        and the number used for calibration.

    Raises:
        InputError: no such precision, images that calibration cannot use, a model that does not fit them or cannot be
            exported, or a limit of ``budget`` that is broken.

    >>> from compress import Quantize
    >>> from search_spaces import preset
    >>> quantize(preset("resnet8", input_shape=(1, 8, 8)), "digits", Quantize(calibration="mse", images=64)).precision
    'int8'
    >>> half = quantize(preset("resnet8"), precision="fp16")
    >>> {stored.bits for stored in half.weight_formats.values()}
    {16}
    """
    stage = stage_of(precision, config)
    if data is None:
        artifact = as_artifact(model, None)
        check_needs_no_images(stage, artifact)
        context = _without_images(artifact, seed, device)
    else:
        artifact, context = _begin(model, data, seed, device=device, trains=_trains(stage))
    context = replace(context, budget=budget or context.budget)
    done = stage(artifact, context)
    if precision is None and config is None:
        done = _mixed_where_it_loses(artifact, done, context)
    check_budget(done, context, stage.name)
    return done if data is None else _judged(artifact, _told(done, stage, context), context)


@usual_torch_settings()
def prune(
    model: Model,
    data: Data,
    config: Prune | None = None,
    *,
    device: str = "host",
    latency_ms: float | None = None,
    amount: float | None = None,
    seed: int = 0,
) -> Artifact:
    """Remove the least important channels and fine-tune.

    Channels are removed until the estimated latency on ``device`` is at most ``latency_ms``, or until a fraction
    ``amount`` of the channels is removed.

    Args:
        model: a torch module, an Arch, an Artifact, or a timm model name.
        data: labeled images, see :func:`compress.load_data`.
        config: more options, see :class:`Prune`.
        device: name of the target device.
        latency_ms: limit on the latency in milliseconds.
        amount: fraction of the channels to remove, between 0 and 1.
        seed: random seed of the splits and of training.

    Returns:
        The pruned model with its metrics.

    Raises:
        InputError: a limit that cannot be reached, or a model that does not fit the images or is an ONNX file.
    """
    wishes: dict[str, Any] = {"latency_ms": latency_ms, "amount": amount}
    stage = replace(config or Prune(), **{name: value for name, value in wishes.items() if value is not None})
    artifact, context = _begin(
        model, data, seed, device=device, trains=stage.recipe is not None or stage.criterion == "taylor"
    )
    return _judged(artifact, stage(artifact, context), context)


@usual_torch_settings()
def distill(
    model: Model,
    data: Data,
    config: Distill | None = None,
    *,
    teacher: Model | Teacher | Sequence[Model | Teacher] | None = None,
    seed: int = 0,
) -> Artifact:
    """Train a model with knowledge distillation from a teacher.

    Args:
        model: the student: a torch module, an Arch, an Artifact, or a timm model name.
        data: labeled images, see :func:`compress.load_data`.
        config: method and training options, see :class:`Distill`.
        teacher: any model with the same classes, a function from pixels (N, C, H, W) between 0 and 1 to logits, or a
            list of these (averaged with equal weight). ``Distill(method="self")`` needs no teacher.
        seed: random seed of the splits and of training.

    Returns:
        The trained student with its metrics.

    Raises:
        InputError: a model or teacher that does not fit the images, or a student that is an ONNX file.
    """
    artifact, context = _begin(model, data, seed, trains=True)
    stage = config or Distill()
    after = stage(artifact, replace(context, teacher=_teachers(teacher, context.data)))
    return _judged(artifact, after, context)


@usual_torch_settings()
def sparsify(
    model: Model,
    data: Inputs | None = None,
    config: Sparsify | None = None,
    *,
    amount: float | Mapping[str, float] | None = None,
    seed: int = 0,
) -> Artifact:
    """Set a fraction of the weights to zero, gradually during training.

    Args:
        model: a torch module, an Arch, an Artifact, a timm model name, or, without training, the path of an ONNX file.
        data: labeled images for training. Without ``data``, the weights of smallest magnitude are removed in one shot.
        config: more options, see :class:`Sparsify`.
        amount: fraction of the weights to set to zero (default 0.8), also by layer.
        seed: random seed of the splits and of training.

    Returns:
        The sparse model with its metrics.

    Raises:
        InputError: an impossible amount, a model that does not fit the images, or an ONNX file to train.

    >>> module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Linear(16, 10))
    >>> sparse = sparsify(module, amount=0.75).model()
    >>> sum(int(p.count_nonzero()) for p in (sparse[0].weight, sparse[2].weight)) == (432 + 160) // 4
    True
    """
    stage = config or Sparsify()
    stage = stage if amount is None else replace(stage, amount=amount)
    if data is not None:
        learns = stage.recipe is not None or stage.scope == "sensitivity"
        artifact, context = _begin(model, data, seed, trains=learns)
        return _judged(artifact, stage(artifact, context), context)
    artifact = as_artifact(model, None)
    return stage.untrained()(artifact, _without_images(artifact, seed))


@usual_torch_settings()
def cluster(
    model: Model,
    data: Inputs | None = None,
    config: Cluster | None = None,
    *,
    clusters: int | Mapping[str, int] | None = None,
    seed: int = 0,
) -> Artifact:
    """Cluster the weights of each layer to a few shared values.

    Args:
        model: a torch module, an Arch, an Artifact, a timm model name, or, without training, the path of an ONNX file.
        data: labeled images with which the shared values are fine-tuned; without ``data`` nothing is trained.
        config: more options, see :class:`Cluster`.
        clusters: number of values per layer (default 16), also by layer.
        seed: random seed of the splits and of training.

    Returns:
        The clustered model with its metrics.

    Raises:
        InputError: an impossible number, a model that does not fit the images, or an ONNX file to train.

    >>> module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Linear(16, 10))
    >>> cluster(module, clusters=4).model()[2].weight.unique().numel()
    4
    """
    stage = config or Cluster()
    stage = stage if clusters is None else replace(stage, clusters=clusters, bits=None)
    if data is not None:
        artifact, context = _begin(model, data, seed, trains=stage.recipe is not None)
        return _judged(artifact, stage(artifact, context), context)
    artifact = as_artifact(model, None)
    return replace(stage, recipe=None)(artifact, _without_images(artifact, seed))


@usual_torch_settings()
def encode(model: Model, out: Path | str, *, input_shape: Shape | None = None) -> Encoded:
    """Losslessly compress the ONNX file of a model to ``out`` (.fnz).

    Args:
        model: a torch module, an Arch, an Artifact, a timm model name, or the path of any ONNX file.
        out: the file to write.
        input_shape: (C, H, W), required if the model does not define it.

    Returns:
        The size of the file in bytes, before and after.

    Raises:
        InputError: a module without ``input_shape``, or one that cannot be exported.
    """
    file = onnx_path(model) or onnx_bytes(as_artifact(model, None, input_shape=input_shape))
    return encode_file(file, out)


def decode(path: Path | str, out: Path | str) -> None:
    """Decompress a .fnz file to the original ONNX file, byte for byte.

    Raises:
        InputError: not such a file, or one that is cut off or altered.
    """
    decode_file(Path(path), out)


def _with_own_record(artifact: Artifact) -> Artifact:
    """With what the network says of images, where it was given its inputs as they are."""
    record = artifact.preprocessing
    return replace(artifact, preprocessing=record.stands_for) if isinstance(record, NetworkInputs) else artifact


def _begin(
    model: Model, data: Inputs, seed: int, *, device: str = "host", trains: bool = False
) -> tuple[Artifact, Context]:
    """The artifact and what a stage works with; what ``trains`` needs labels of the network's classes."""
    images = as_dataset(data, seed) if trains else calibration_dataset(data, seed, input_shape=_shape_of(model, data))
    if onnx_path(model) is None:
        images = of_one_input(images)
    artifact = as_artifact(model, images, trains=trains)
    bare = artifact.bare()
    read = fitted(images, bare) if trains else fitted_inputs(images, bare)
    return bare, Context(data=read, device=load_device(device), seed=seed, measured=False)


def _shape_of(model: Model, data: Inputs) -> tuple[int, ...] | None:
    """What a model says that it reads, for a folder of images; None where it does not say so."""
    if not isinstance(data, str | Path) or isinstance(model, nn.Module):
        return None
    try:
        return as_artifact(model, None).source.input_shape
    except InputError:  # is told where the model is needed
        return None


def _trains(stage: Precision) -> bool:
    """Whether a stage learns from labels."""
    return isinstance(stage, QuantizeAware | Binarize) or (isinstance(stage, Int4) and stage.recipe is not None)


def _told(done: Artifact, stage: Precision, context: Context) -> Artifact:
    """With how many images were given, and of how many the ranges are."""
    used = {}
    if isinstance(stage, Quantize):
        used["calibration_images"] = min(stage.images, len(context.data.train))
    given = {GIVEN: context.data.facts[GIVEN]} if GIVEN in context.data.facts else {}
    return replace(done, metrics={**done.metrics, **given, **used})


def _mixed_where_it_loses(artifact: Artifact, done: Artifact, context: Context) -> Artifact:
    """What loses most in float, where the whole in int8 loses more on labeled images that it was not calibrated on
    than is allowed."""
    points_lost = done.metrics["quantization"]["points_lost"]
    if not context.data.train.is_labeled or points_lost <= context.max_accuracy_drop:
        return done
    return MixedPrecision()(artifact if done.quantization is None else done, context)


def _without_images(artifact: Artifact, seed: int, device: str = "host") -> Context:
    none = Split(np.empty((0, 1, 1, 1), np.uint8), np.empty(0, np.int64))
    data = Dataset(name="no images", train=none, val=none, test=none, preprocessing=artifact.preprocessing)
    return Context(data=data, device=load_device(device), seed=seed, measured=False)


def _teachers(given: Model | Teacher | Sequence[Model | Teacher] | None, data: Dataset) -> Teacher | None:
    if given is None:
        return None
    if isinstance(given, Ensemble):
        return Ensemble([_teacher(each, data) for each in given.teachers], given.weights)
    if isinstance(given, list | tuple):
        return Ensemble([_teacher(each, data) for each in given])
    return _teacher(cast("Model | Teacher", given), data)


def _teacher(teacher: Model | Teacher, data: Dataset) -> Teacher:
    if (file := onnx_path(teacher)) is not None:
        return OnnxTeacher(file, data)
    if not is_model(teacher):
        if not callable(teacher):
            raise InputError(f"teacher must be a model, a callable, or a list of these, got {type(teacher).__name__}")
        _check_teaches(teacher, data)
        return teacher
    artifact = as_artifact(teacher, data)
    fitted(data, artifact)  # tells what does not fit
    module = artifact.model()
    size = artifact.source.input_shape[1:]
    if size != data.preprocessing.input_shape[1:]:
        module = nn.Sequential(nn.Upsample(size, mode="bilinear"), module)
    return ModuleTeacher(module, artifact.preprocessing)


def _check_teaches(teacher: Teacher, data: Dataset) -> None:
    """Raise an InputError unless a function makes finite logits of the classes of two images."""
    count = min(2, len(data.val))
    logits, wanted = teacher(pixels_of(data.val.images[:count])), (count, data.num_classes)
    if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted or not bool(logits.isfinite().all()):
        shape = tuple(getattr(logits, "shape", ()))
        raise InputError(
            f"teacher must return finite logits of shape {wanted} for {count} images, "
            f"got {type(logits).__name__} {shape}"
        )


def _judged(before: Artifact, after: Artifact, context: Context) -> Artifact:
    """With what the files of both are worth on validation images, spread evenly over them."""
    split, record = context.data.val.spread(_JUDGED_IMAGES), before.preprocessing
    after = _with_own_record(after)
    files = [onnx_bytes(artifact) for artifact in (_with_own_record(before), after)]
    outputs, changed = (onnx_outputs(file, split.images, record) for file in files)
    found: dict[str, Any] = {"val_images": len(split), "file_bytes_before": len(files[0]), "file_bytes": len(files[1])}
    one, other = (next(iter(each.values())) for each in (outputs, changed))
    if tells_classes(one):
        found["val_same_class"] = float(np.mean(one.argmax(1) == other.argmax(1)))
    if split.is_labeled:
        found["val_accuracy_before"] = accuracy(one.argmax(1), split)
        found["val_accuracy"] = accuracy(other.argmax(1), split)
    ratios = {
        name: signal_to_noise_db(value, changed[name]) if value.shape == changed[name].shape else -math.inf
        for name, value in outputs.items()
        if name in changed and value.dtype.kind in "fiub"  # text says nothing of differences
    }
    found["val_snr_db"] = min(ratios.values(), default=math.inf)
    if len(ratios) > 1:
        found["val_snr_db_of_outputs"] = ratios
    return replace(after, metrics={**after.metrics, **found})
