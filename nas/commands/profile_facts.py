"""The values that ``nas profile`` prints, as JSON types, and their formatting."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hw_profiles import Device, profile
from hw_profiles.devices.c99_program import deploys_c99, runs_c99, with_c99_costs
from hw_profiles.devices.footprint import runtime_bytes
from hw_profiles.errors import InputError
from hw_profiles.latency.estimate import precision_of
from hw_profiles.layer_profile import profile_layers
from hw_profiles.network.workload import InputShape, Workload
from hw_profiles.profiling import workload_of, workload_on
from hw_profiles.spelling_suggestions import did_you_mean
from nas.commands.output.text_table import cut, printable
from search_spaces import list_presets, preset
from search_spaces.arch import Arch

Facts = Mapping[str, Any]


_Model = Arch | Path | str


_OF_C99 = ("latency_ms", "latency_low_ms", "latency_high_ms", "peak_ram_bytes", "flash_bytes")
_LARGEST_JSON = 16 * 1024**2
_MOST_AXES = 8
_KIND_WIDTH = 17


def profile_facts(
    name: str,
    device: Device,
    precision: str | None = None,
    *,
    input_shape: InputShape = None,
    measured: bool = False,
    checked: bool = False,
) -> dict[str, Any]:
    """Everything about a model as JSON types: its totals, where they come from, and its layers as a list.

    ``checked`` adds what fvcore counts for its module.

    Raises:
        InputError: no such model, options that do not fit it, or a device without costs for it.

    >>> from hw_profiles import load_device
    >>> facts = profile_facts("resnet8", load_device("host"), "int8")
    >>> facts["macs"] == sum(layer["macs"] for layer in facts["layers"])
    True
    """
    model = find_model(name, input_shape)
    file = model if isinstance(model, Path) else None
    if file and checked:
        raise InputError(f"--check requires a PyTorch model (a preset, timm:NAME or an arch.json), got file {name!r}")
    if file and precision is not None:
        raise InputError(f"--precision does not apply to files, whose precision is fixed, got {precision!r}")
    precision = precision or "fp32"
    workload = workload_of(model, input_shape)
    reread = measured or file  # what was read once need not be traced again, if nothing is run
    found = profile(model if reread else workload, device, precision, input_shape=input_shape, measured=measured)
    if file is None:
        workload = workload.with_precision(precision)
    parts = profile_layers(workload_on(device, model, workload, input_shape), device)
    return {
        "model": name,
        "device": device.name,
        "precision": precision_of(workload),
        "input_shape": list(workload.shapes[workload.input][1:]),
        "input_shapes": {name: list(workload.shapes[name][1:]) for name in workload.inputs},
        **found.to_dict(),
        "estimated_ms": parts.latency.ms,
        "estimated_low_ms": parts.latency.low_ms,
        "estimated_high_ms": parts.latency.high_ms,
        "peak_index": parts.peak_index,
        "peak_layer": parts.peak.name,
        "call": {"microseconds": parts.call_microseconds, "share": parts.call_share},
        "unknown_ops": dict(parts.unknown),
        "dead_macs": found.macs - parts.macs,
        **dict(zip(("runtime_ram_bytes", "runtime_flash_bytes"), runtime_bytes(device), strict=True)),
        "c99": _c99_facts(file or workload, precision_of(workload), device),
        "sources": {
            "latency_ms": found.latency_source,
            "energy_mj": _energy_source(device),
            "microseconds": "estimated",
            "peak_ram_bytes": "computed",
            "flash_bytes": "counted",
            "macs": "counted",
        },
        "layers": [asdict(layer) for layer in parts.layers],
        **({"fvcore": _fvcore(model, workload.shapes[workload.input][1:])} if checked else {}),
    }


def _c99_facts(model: Path | Workload, precision: str, device: Device) -> dict[str, Any] | None:
    """What our own program takes on a microcontroller whose costs are those of other software; None elsewhere."""
    if precision != "int8" or not runs_c99(device) or deploys_c99(device):
        return None
    found = profile(model, with_c99_costs(device), precision).to_dict()
    return {name: found[name] for name in _OF_C99}


def _fvcore(model: Arch | Path | str, input_shape: tuple[int, ...]) -> dict[str, Any]:
    from hw_profiles.torch_io.fvcore_counts import fvcore_counts
    from search_spaces import build_model

    assert not isinstance(model, Path)
    return asdict(fvcore_counts(model if isinstance(model, str) else build_model(model), input_shape))


def of_runtime(size: int, before: str) -> str:
    """The part of a total that the runtime itself takes, after the words ``before``.

    >>> of_runtime(0, " and"), of_runtime(16_800, " and")
    ('', ' and 16,800 for the runtime')
    """
    return f"{before} {size:,} for the runtime" if size else ""


def energy_text(facts: Facts) -> str:
    """Millijoules with their 90% interval.

    >>> energy_text({"energy_mj": 2.0, "energy_low_mj": 1.0, "energy_high_mj": 4.0})
    '2 mJ (90%: 1 to 4)'
    """
    low, high = facts["energy_low_mj"], facts["energy_high_mj"]
    return f"{facts['energy_mj']:.3g} mJ (90%: {low:.3g} to {high:.3g})"


def _energy_source(device: Device) -> str | None:
    """What power the energy is of; what the device takes between inferences is not in it."""
    power = device.facts.get("active_power_mw")
    if power is None:
        return None
    assumed = "assumed" if power.assumed else "published"
    scope = f"; {power.note}" if power.note else ""
    return f"latency × {power.value:,g} mW ({assumed}{scope}), without idle power"


def reads_text(facts: Facts) -> str:
    """What the network reads, in words.

    >>> reads_text({"input_shape": [3, 8, 8], "input_shapes": {"input": [3, 8, 8]}})
    'input 3x8x8'
    >>> reads_text({"input_shape": [7], "input_shapes": {"audio": [7], "rate": []}})
    'inputs: audio 7, rate 1'
    """
    if len(facts["input_shapes"]) == 1:
        return f"input {'x'.join(map(str, facts['input_shape']))}"
    named = (f"{cut(printable(name), 40)} {shape_text([1, *sides])}" for name, sides in facts["input_shapes"].items())
    return f"inputs: {', '.join(named)}"


def find_model(name: str, input_shape: InputShape = None) -> _Model:
    """A model of the command line: an ONNX file, the JSON of an Arch, a preset, or else a name of timm.

    Raises:
        InputError: none of them, or an ``input_shape`` that does not fit it.

    >>> find_model("resnet8", (1, 28, 28)).input_shape
    (1, 28, 28)
    """
    path, suffix = Path(name), Path(name).suffix.lower()
    if suffix in (".onnx", ".json"):
        if not path.is_file():
            raise InputError(f"file not found: {name}")
        return path if suffix == ".onnx" else _read_arch(path, input_shape)
    if name.startswith("timm:"):
        return name
    try:
        found = preset(name)
    except ValueError:
        return _timm_name(name)
    return found if input_shape is None else preset(name, input_shape=_three(input_shape))


def parse_shape(text: str) -> tuple[int, ...]:
    """Sides without the batch.

    Raises:
        InputError: not numbers of at least 1 with an x between them.

    >>> parse_shape("3x224x224")
    (3, 224, 224)
    """
    if not re.fullmatch(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8})*", text) or text.count("x") >= _MOST_AXES:
        raise InputError(f"--input-shape must be positive integers separated by x, e.g. 3x224x224, got {text!r}")
    return tuple(map(int, text.split("x")))


def parse_input_shape(text: str) -> InputShape:
    """Sides without the batch, or such sides by the names of inputs.

    Raises:
        InputError: none of these.

    >>> parse_input_shape("3x224x224"), parse_input_shape("image=3x64x64,sizes=2")
    ((3, 224, 224), {'image': (3, 64, 64), 'sizes': (2,)})
    """
    if "=" not in text:
        return parse_shape(text)
    pairs = [part.rpartition("=") for part in text.split(",")]
    return {name: parse_shape(sides) for name, _, sides in pairs}


def doubts(facts: Facts) -> list[str]:
    """Reasons why the estimate is less certain than its interval.

    >>> from hw_profiles import load_device
    >>> doubts(profile_facts("resnet8", load_device("host")))
    []
    """
    reasons = []
    fallback_costs = [layer for layer in facts["layers"] if layer["fallback_cost"]]
    if fallback_costs:
        share = sum(layer["share"] for layer in fallback_costs)
        reasons.append(
            f"{len(fallback_costs)} layers ({100 * share:.0f}% of the estimate) have no measured cost on this device; "
            "the cost of a similar kernel is used"
        )
    if facts["unknown_ops"]:
        named = ", ".join(f"{cut(printable(name), 40)} ({n})" for name, n in sorted(facts["unknown_ops"].items()))
        reasons.append(f"unknown operations (counted as 0 MACs): {named}")
    return reasons


def interval(facts: Facts, name: str) -> str:
    """The milliseconds ``name`` with their 90% interval.

    >>> interval({"x_ms": 1.0, "x_low_ms": 0.5, "x_high_ms": 2.0}, "x")
    '1.0000 ms (0.5000 to 2.0000, 90%)'
    """
    return f"{facts[f'{name}_ms']:.4f} ms ({facts[f'{name}_low_ms']:.4f} to {facts[f'{name}_high_ms']:.4f}, 90%)"


def kind_of(layer: Facts) -> str:
    """The kind of a layer, or its activation function; an unknown operation has a question mark.

    >>> kind_of({"kind": "activation", "function": "hard_swish"}), kind_of({"kind": "other", "function": "Einsum"})
    ('hard_swish', 'Einsum?')
    """
    if layer["kind"] == "other":
        return f"{cut(printable(layer['function']), _KIND_WIDTH - 1)}?"
    return cut(printable(layer["function"] if layer["function"] != "none" else layer["kind"]), _KIND_WIDTH)


def bits_of(layer: Facts) -> str:
    """Bits of an input element, and of a weight if the layer has weights: ``8/8``."""
    return f"{layer['input_bits']}" + (f"/{layer['weight_bits']}" if layer["weight_bits"] else "")


def shape_text(shape: Sequence[int]) -> str:
    """A shape without its batch: ``16x32x32``."""
    return "x".join(map(str, shape[1:])) or "1"


def _read_arch(path: Path, input_shape: InputShape) -> Arch:
    if path.stat().st_size > _LARGEST_JSON:
        raise InputError(f"model {path}: an architecture must have at most {_LARGEST_JSON:,} bytes")
    try:
        arch = Arch.from_json(path.read_text())
    except ValueError as error:
        raise InputError(f"model {path}: {error}") from None
    return arch if input_shape is None else replace(arch, input_shape=_three(input_shape))


def _three(shape: InputShape) -> tuple[int, int, int]:
    if isinstance(shape, Mapping):
        raise InputError(f"--input-shape by name is for .onnx files, got {', '.join(shape)}")
    assert shape is not None
    if len(shape) != 3:
        raise InputError(f"--input-shape must be three sizes, e.g. 3x224x224, got {'x'.join(map(str, shape))}")
    channels, height, width = shape
    return channels, height, width


def _timm_name(name: str) -> str:
    import timm

    if not timm.is_model(name):
        hint = did_you_mean(name, [*list_presets(), *timm.list_models()])
        raise InputError(
            f"unknown model {name!r}{hint} (valid: a preset of `nas list`, timm:NAME, an .onnx file, the arch.json of "
            "a run)"
        )
    return f"timm:{name}"
