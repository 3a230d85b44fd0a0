"""Finds the preset that a file of weights belongs to."""

from __future__ import annotations

from pathlib import Path

from hw_profiles.errors import InputError
from search_spaces.presets import list_presets, preset
from search_spaces.trained_weights.timm_keys import CLASSIFIER, STEM, timm_keys
from search_spaces.trained_weights.weights_file import noted_preset, read_state, state_difference


def identify_weights(path: Path | str) -> str:
    """Identify which preset a timm checkpoint belongs to (ignoring the classifier).

    Networks with the same tensors, such as timm's ``tf_`` variants with another padding, cannot be distinguished unless
    the file names its preset, as the files in the cache of runs do.

    Raises:
        InputError: the file cannot be read, or holds the weights of no preset.

    >>> identify_weights("no_such_file.safetensors")
    Traceback (most recent call last):
    hw_profiles.errors.InputError: no_such_file.safetensors: must be a file of weights
    """
    state = read_state(Path(path))
    weight = state.get(STEM)
    channels = weight.shape[1] if weight is not None and weight.ndim == 4 else 3
    body = {key: value for key, value in state.items() if key not in CLASSIFIER}
    names = [name for name in list_presets() if timm_keys(preset(name))]
    noted = noted_preset(Path(path))
    for name in sorted(names, key=lambda name: name != noted):
        shapes = {key: shape for key, (_, shape) in timm_keys(preset(name)).items() if key not in CLASSIFIER}
        shapes[STEM] = (shapes[STEM][0], channels, *shapes[STEM][2:])
        if state_difference(shapes, body) is None:
            return name
    raise InputError(f"{path} does not match any preset (valid: {', '.join(names)})")
