"""Files of timm's weights."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from hw_profiles.errors import InputError
from hw_profiles.network.workload import Shape
from search_spaces.arch import Arch
from search_spaces.trained_weights.timm_keys import CLASSIFIER, STEM, timm_keys

_TORCH_SUFFIXES = (".pth", ".pt", ".bin")
_LARGEST_FILE = 1024**3
_NOTE = "fitnas.preset"


def read_weights(arch: Arch, path: Path) -> dict[str, Tensor]:
    """A state dict for ``build_model(arch)`` from a file of timm's: ``.safetensors``, ``.pth``, ``.pt`` or ``.bin``.

    The classifier is left out where the file has none or one for another number of classes. For gray images the
    stem's weights are summed over their input channels.

    Raises:
        InputError: the file cannot be read, or a tensor is missing, unexpected or of another shape; the first is named.
    """
    state, wanted = state_of_classes(arch, path)
    compared = {key: value for key, value in state.items() if key in wanted or key not in CLASSIFIER}
    problem = state_difference({key: shape for key, (_, shape) in wanted.items()}, compared)
    if problem:
        raise InputError(f"{path}: {problem}")
    return {ours: state[key].float() for key, (ours, _) in wanted.items()}


def state_of_classes(arch: Arch, path: Path) -> tuple[dict[str, Tensor], dict[str, tuple[str, Shape]]]:
    """The tensors of a file, and which of :func:`timm_keys` the network wants of them: all, but no classifier where the
    file has none or one for another number of classes. For gray images the stem's weights are summed.

    Raises:
        InputError: the file cannot be read, or timm has no such network.
    """
    state = read_state(path)
    wanted = timm_keys(arch)
    if not wanted:
        raise InputError(f"{path}: there is no such architecture in timm, so its weights cannot be read")
    weight = state.get(STEM)
    if weight is not None and weight.ndim == 4 and weight.shape[1] == 3 and arch.input_shape[0] == 1:
        state[STEM] = weight.sum(1, keepdim=True)
    if _classes(state) != arch.num_classes:
        wanted = {key: place for key, place in wanted.items() if key not in CLASSIFIER}
    return state, wanted


def file_of_weights(name: str, state: Mapping[str, Tensor]) -> bytes:
    """The content of a ``.safetensors`` file of timm's weights that says which preset they are of."""
    return save({key: value.contiguous() for key, value in state.items()}, metadata={_NOTE: name})


def noted_preset(path: Path) -> str | None:
    """The preset that a readable file of weights says it is of, where it was made by :func:`file_of_weights`."""
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get(_NOTE)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, without BatchNorm's counts of batches, which nothing here reads.

    Raises:
        InputError: the file cannot be read, or holds no state dict of dense floating point tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: must be a file of weights")
    if path.suffix not in (".safetensors", *_TORCH_SUFFIXES):
        raise InputError(f"{path}: must end in .safetensors, {', '.join(_TORCH_SUFFIXES)}")
    if (size := _unpacked_bytes(path)) > _LARGEST_FILE:
        raise InputError(f"{path}: must have at most {_LARGEST_FILE} bytes, unpacked, got {size}")
    state = _load(path)
    if not isinstance(state, dict) or not state:
        raise InputError(f"{path}: must hold a state dict, got {type(state).__name__}")
    kept: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise InputError(f"{path}: must hold tensors by name, got {type(value).__name__} for {key!r}")
        if key.endswith("num_batches_tracked"):
            continue
        if not value.is_floating_point() or value.layout != torch.strided or value.device.type != "cpu":
            raise InputError(f"{path}: {key} must be a dense tensor of floating point numbers, got {value.dtype}")
        kept[key] = value
    return kept


def _unpacked_bytes(path: Path) -> int:
    """What the file takes in memory: torch's archives may be compressed, and torch unpacks whatever they declare."""
    if not zipfile.is_zipfile(path):
        return path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def _load(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    except Exception as error:  # torch raises whatever its reader of archives and pickles meets
        raise InputError(f"{path}: not a file of weights ({type(error).__name__})") from None


def _classes(state: Mapping[str, Tensor]) -> int | None:
    weight = state.get(CLASSIFIER[0])
    return None if weight is None or weight.ndim == 0 else weight.shape[0]


def state_difference(wanted: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> str | None:
    """What is wrong with a state dict that must hold tensors of these shapes; None where nothing is."""
    for key, shape in wanted.items():
        if key not in state:
            return f"must hold {key}, which is missing"
        if tuple(state[key].shape) != shape:
            return f"{key} must have the shape {shape}, got {tuple(state[key].shape)}"
    unexpected = next((key for key in state if key not in wanted), None)
    return None if unexpected is None else f"unexpected key {unexpected}"
