"""Pretrained weights to start from: a file, or timm."""

from __future__ import annotations

from pathlib import Path

from compress.atomic_files import write_bytes
from hw_profiles.cache_folder import cache_folder
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import did_you_mean
from search_spaces import identify_weights, list_presets

_TIMM = "timm:"


def initial_weights(init: str) -> tuple[str, Path]:
    """The preset and the file of weights that ``--init`` names.

    ``timm:NAME`` is downloaded once and kept in the user's cache folder; of a file the preset is found by its shapes.

    Raises:
        InputError: no such preset or file, weights of another network, or no network to download from.
    """
    if not init.startswith(_TIMM):
        path = Path(init)
        if not path.is_file():
            raise InputError(f"--init must be timm:NAME or a file of timm's weights, got {init!r}: it does not exist")
        return identify_weights(path), path.resolve()
    name = init.removeprefix(_TIMM)
    import timm

    valid = [preset for preset in list_presets() if timm.is_model(preset) and timm.is_model_pretrained(preset)]
    if name not in valid:
        raise InputError(
            f"--init: timm has no weights for a preset {name!r}{did_you_mean(name, valid)} (valid: {', '.join(valid)})"
        )
    return name, _downloaded(name)


def _downloaded(name: str) -> Path:
    path = cache_folder() / "weights" / f"{name}.safetensors"
    if not path.is_file():
        import timm
        from safetensors.torch import save

        try:
            state = timm.create_model(name, pretrained=True).state_dict()
        except (OSError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"--init {_TIMM}{name}: the weights cannot be downloaded ({reason}); give a file of them instead"
            ) from None
        write_bytes(path, save({key: value.contiguous() for key, value in state.items()}))
    return path
