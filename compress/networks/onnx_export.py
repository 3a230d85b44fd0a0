"""Exports an artifact as an ONNX file, and runs that file in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from blocks.conv import ConvNormAct
from compress.atomic_files import write_bytes
from compress.data.dataset import Split
from compress.data.network_inputs import NamedInputs
from compress.data.preprocessing import METADATA_KEY, Preprocessing
from compress.data.unknown_preprocessing import UnknownPreprocessing
from compress.networks.artifact import Artifact
from compress.networks.batchnorm_folding import fold_normalization, folded_pair
from compress.networks.torch_export import PARITY, distance, export_module
from compress.training.evaluation import predict
from compress.training.torch_settings import usual_torch_settings
from compress.weight_codecs.apply_formats import store_formats
from hw_profiles.errors import InputError
from hw_profiles.network.workload import WEIGHTED, Workload
from hw_profiles.onnx_io.session import as_feed, fixed_batch, open_session, run_session
from hw_profiles.onnx_io.untrusted_file import load_model
from hw_profiles.onnx_io.writer import write_onnx
from search_spaces.arch import Arch


def export_onnx(artifact: Artifact, path: Path | str) -> None:
    """Write the artifact as ONNX: batch normalization folded, int8 where it has scales, preprocessing inside.

    Raises:
        RuntimeError: the float32 file of an Arch, run in ONNX Runtime, gives other logits than the module.
        InputError: a module that cannot be exported.
    """
    write_bytes(Path(path), onnx_bytes(artifact))


@usual_torch_settings()
def onnx_bytes(artifact: Artifact) -> bytes:
    """The file of :func:`export_onnx`; of an ONNX file that no stage changed, its own bytes.

    >>> from search_spaces import build_model, preset
    >>> record = Preprocessing(channels=3, sizes=((32, 32),), mean=(0.5,) * 3, std=(0.25,) * 3, class_names=("a", "b"))
    >>> arch = preset("resnet8", num_classes=2)
    >>> len(onnx_bytes(Artifact(source=arch, weights={}, preprocessing=record).with_model(build_model(arch)))) > 300_000
    True
    """
    network = artifact.network
    if artifact.deployed is not None:
        return with_metadata(artifact.deployed.data, _metadata(artifact))
    if network.file is not None:
        return network.file.data
    return network.by_description(
        lambda arch: _arch_bytes(artifact, arch),
        lambda: with_metadata(export_module(artifact.model(), network.reads), _metadata(artifact)),
    )


def with_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """The file with these strings, over those that it has.

    >>> from hw_profiles.onnx_io.reader import read_metadata
    >>> from search_spaces import preset
    >>> read_metadata(with_metadata(write_onnx(preset("resnet8").workload()), {"a": "b"}))
    {'a': 'b'}
    """
    model = load_model(data)
    onnx.helper.set_model_props(model, {p.key: p.value for p in model.metadata_props} | dict(metadata))
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def folded_weights(model: nn.Module, workload: Workload) -> dict[str, NDArray[np.float32]]:
    """Weights and biases of every operation with the batch normalization that follows it folded in.

    >>> from search_spaces import build_model, preset
    >>> arch = preset("resnet8")
    >>> folded_weights(build_model(arch), arch.workload())["stem.bias"].shape
    (16,)
    """
    weights: dict[str, NDArray[np.float32]] = {}
    for op in workload.ops:
        if op.kind not in WEIGHTED:
            continue
        module = model.get_submodule(op.name)
        if isinstance(module, ConvNormAct):
            weights[op.weight], weights[op.bias_name] = folded_pair(module.conv, module.norm)
        else:
            weights[op.weight] = _array(module.weight)
            if op.bias:
                weights[op.bias_name] = _array(module.bias)
    return weights


def with_folded_weights(artifact: Artifact, weights: Mapping[str, NDArray[np.float32]]) -> Artifact:
    """The artifact of an Arch whose :func:`folded_weights` are ``weights``, those of
    the same names.

    Batch normalization becomes neutral: its bias is the convolution's.

    Raises:
        InputError: a weight has no place in the network, or another shape.

    >>> from compress import Preprocessing
    >>> from search_spaces import build_model, preset
    >>> arch = preset("resnet8")
    >>> record = Preprocessing(channels=3, sizes=((32, 32),), mean=(0.5,) * 3, std=(0.25,) * 3, class_names=("a", "b"))
    >>> artifact = Artifact(source=arch, weights={}, preprocessing=record).with_model(build_model(arch))
    >>> changed = with_folded_weights(artifact, {"stem.bias": np.full(16, 0.1, np.float32)})
    >>> folded_weights(changed.model(), arch.workload())["stem.bias"].max()
    np.float32(0.1)
    """
    model = artifact.model()
    fold_normalization(model)
    modules, state = dict(model.named_modules()), model.state_dict()
    for name, value in weights.items():
        owner, _, part = name.rpartition(".")
        own = {"weight": f"{owner}.conv.weight", "bias": f"{owner}.norm.bias"}
        key = own[part] if isinstance(modules.get(owner), ConvNormAct) else name
        if key not in state or state[key].shape != value.shape:
            wanted = tuple(state[key].shape) if key in state else "none of that name"
            raise InputError(f"weight {name} must have the network's shape ({wanted}), got {value.shape}")
        state[key].copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return artifact.with_model(model)


def predict_onnx(path: Path, split: Split, preprocessing: Preprocessing, batch_size: int = 250) -> NDArray[np.int64]:
    """The class that ONNX Runtime gives each image."""
    predictions: NDArray[np.int64] = onnx_logits(path, split.images, preprocessing, batch_size).argmax(1)
    return predictions


def onnx_logits(
    model: bytes | Path, images: NDArray[np.uint8], preprocessing: Preprocessing, batch_size: int = 250
) -> NDArray[np.float32]:
    """Logits (N, classes) of ONNX Runtime for images (N, H, W, C); one at a time where the file reads one."""
    return next(iter(onnx_outputs(model, images, preprocessing, batch_size).values()))


def onnx_outputs(
    model: bytes | Path, images: Any, preprocessing: Preprocessing, batch_size: int = 250
) -> dict[str, NDArray[Any]]:
    """All outputs (N, ...) by name that ONNX Runtime makes of images (N, H, W, C), or of inputs as the network reads
    them. Of a file for batches of one size the last one is filled up; one that says that it takes any number, and does
    not, reads one at a time.

    Raises:
        InputError: it cannot be run on these inputs.
    """
    session = open_session(model)
    names = [output.name for output in session.get_outputs()]
    fixed = fixed_batch(session)
    try:
        feeds = _feeds(session, images, preprocessing, fixed or batch_size, filled=bool(fixed))
        made = [run_session(session, names, feed) for feed in feeds]
    except InputError:
        if fixed or batch_size == 1:
            raise
        return onnx_outputs(model, images, preprocessing, batch_size=1)
    joined = {name: _joined(parts) for name, parts in zip(names, zip(*made, strict=True), strict=True)}
    whole = isinstance(images, NamedInputs) and images.whole_calls
    read = len(images) if whole or not fixed else len(made) * fixed
    return {
        name: each[: len(each) * len(images) // read] if len(each) % read == 0 else each
        for name, each in joined.items()
    }


def _feeds(
    session: Any, images: Any, preprocessing: Preprocessing, size: int, *, filled: bool
) -> Iterator[dict[str, Any]]:
    """What each call reads; where it is ``filled``, the last one as much as the others."""
    if isinstance(images, NamedInputs) and images.whole_calls:
        yield from (as_feed(session, feed) for feed in images.feeds(size))
        return
    name, count = session.get_inputs()[0].name, len(images)
    for start in range(0, count, size):
        rows: Any = np.arange(start, start + size) % count if filled else slice(start, start + size)
        part = images[rows]
        arrays = part.arrays if isinstance(part, NamedInputs) else {name: preprocessing.tensor(part)}
        yield as_feed(session, arrays)


def _joined(parts: Sequence[Any]) -> NDArray[Any]:
    """What calls made; as plain numbers where the sides differ from call to call."""
    arrays = [np.atleast_1d(part) for part in parts]
    same = len({array.shape[1:] for array in arrays}) == 1
    return np.concatenate(arrays if same else [array.reshape(-1) for array in arrays])


def differing(artifact: Artifact, predictions: NDArray[np.int64], split: Split) -> int | None:
    """How many predictions of a deployed file are not those of the artifact's float32 module, None without one."""
    if artifact.network.file is not None:
        return None
    return int(np.sum(predict(artifact.model(), split, artifact.preprocessing) != predictions))


def _arch_bytes(artifact: Artifact, arch: Arch) -> bytes:
    workload, model = arch.workload(), artifact.model()
    weights = folded_weights(model, workload)
    data = write_onnx(workload, weights, quantization=artifact.quantization, metadata=_metadata(artifact))
    data = store_formats(data, artifact.weight_formats)
    if artifact.quantization is None:
        _check_parity(model, data, arch.input_shape)
    return data


def _metadata(artifact: Artifact) -> dict[str, str]:
    known = (
        {}
        if isinstance(artifact.preprocessing, UnknownPreprocessing)
        else {METADATA_KEY: artifact.preprocessing.to_json()}
    )
    return known | {"fitnas.arch": artifact.source.id}


def _array(parameter: object) -> NDArray[np.float32]:
    assert isinstance(parameter, nn.Parameter)
    array: NDArray[np.float32] = parameter.detach().float().contiguous().numpy()
    return array


def _check_parity(model: nn.Module, data: bytes, input_shape: tuple[int, int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((8, *input_shape)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(x)).numpy()
    worst = distance(open_session(data).run(None, {"input": x})[0], expected)
    if not worst < PARITY:
        raise RuntimeError(f"ONNX Runtime and PyTorch differ by {worst:.1e} of the largest logit")
