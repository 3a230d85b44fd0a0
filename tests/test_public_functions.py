"""Each public function can be called, and called again: no module takes its place once it was imported."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import blocks
import compress
import hw_profiles
import nas
import search_spaces
from blocks import BlockSpec
from hw_profiles import load_device
from hw_profiles.errors import InputError
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io.writer import write_onnx
from search_spaces import Arch, preset
from search_spaces.trained_weights.timm_keys import timm_keys

PACKAGES = ("blocks", "hw_profiles", "search_spaces", "compress", "nas")
SHAPE = (1, 16, 16)
CONV = BlockSpec(kind="conv", in_channels=3, out_channels=4)
BLINK = compress.Recipe(epochs=0.02)
REGISTERED = iter(range(20))


def network() -> Arch:
    return preset("resnet8", input_shape=SHAPE)


def data() -> Any:
    return compress.load_data("digits", size=16)


def artifact() -> compress.Artifact:
    bare = compress.Artifact(source=network(), weights={}, preprocessing=data().preprocessing)
    return bare.with_model(search_spaces.build_model(network()))


def study() -> Any:
    return nas.search(lambda t: t.suggest_int("x", 1, 3), lambda x, f: x / 3, cost=lambda x: {"size": x}, n_trials=2)


def context() -> Any:
    return compress.Context(data=data(), device=load_device("host"), budget=hw_profiles.Budget(), measured=False)


def encoded(folder: Path) -> Path:
    compress.encode(network(), folder / "m.fnz")
    return folder / "m.fnz"


def written(folder: Path) -> Path:
    (folder / "m.onnx").write_bytes(write_onnx(network().workload()))
    return folder / "m.onnx"


def plan(folder: Path) -> Path:
    (folder / "plan.toml").write_text('[[stages]]\nname = "fp16"\n')
    return folder / "plan.toml"


def weights(folder: Path) -> Path:
    """Random weights under the names of timm."""
    arch = preset("mobilenetv2_035")
    state = search_spaces.build_model(arch).state_dict()
    save_file({key: state[ours].contiguous() for key, (ours, _) in timm_keys(arch).items()}, folder / "w.safetensors")
    return folder / "w.safetensors"


def refused(call: Callable[..., Any], *arguments: Any, **settings: Any) -> None:
    """Called with an argument that it refuses: what it does takes too long here, or is tested elsewhere."""
    with pytest.raises(InputError):
        call(*arguments, **settings)


def register() -> None:
    search_spaces.register_block(f"twice{next(REGISTERED)}", lambda spec: None, lambda *parts: "x")


CALLS: dict[str, Callable[[Path], Any]] = {
    "blocks.build_block": lambda folder: blocks.build_block(CONV),
    "hw_profiles.calibrate": lambda folder: hw_profiles.calibrate(load_device("host"), [(network(), 0.1)]),
    "hw_profiles.check_machine": lambda folder: refused(hw_profiles.check_machine, load_device("raspberry-pi-4")),
    "hw_profiles.list_devices": lambda folder: hw_profiles.list_devices(),
    "hw_profiles.load_device": lambda folder: hw_profiles.load_device("host"),
    "hw_profiles.measure_device": lambda folder: refused(hw_profiles.measure_device, folder / "device.txt"),
    "hw_profiles.profile_layers": lambda folder: hw_profiles.profile_layers(network(), load_device("host"), "int8"),
    "hw_profiles.write_kit": lambda folder: hw_profiles.write_kit(folder / str(next(REGISTERED)), ("fp32",)),
    "hw_profiles.profile": lambda folder: hw_profiles.profile(network(), load_device("host")),
    "search_spaces.build_model": lambda folder: search_spaces.build_model(network()),
    "search_spaces.identify_weights": lambda folder: search_spaces.identify_weights(weights(folder)),
    "search_spaces.list_presets": lambda folder: search_spaces.list_presets(),
    "search_spaces.list_spaces": lambda folder: search_spaces.list_spaces(),
    "search_spaces.load_space": lambda folder: search_spaces.load_space("tiny", input_shape=SHAPE, num_classes=3),
    "search_spaces.preset": lambda folder: search_spaces.preset("resnet8"),
    "search_spaces.pretrained_space": lambda folder: search_spaces.pretrained_space(
        "mobilenetv2_035", weights(folder), input_shape=(3, 32, 32), num_classes=3
    ),
    "search_spaces.register_block": lambda folder: register(),
    "search_spaces.sample": lambda folder: search_spaces.sample("tiny", seed=0),
    "nas.compress": lambda folder: nas.compress(
        written(folder),
        data="digits",
        size=16,
        latency_from="estimated",
        max_accuracy_drop=100,
        plan=plan(folder),
        out=folder / str(next(REGISTERED)),
    ),
    "compress.cluster": lambda folder: compress.cluster(network(), clusters=4),
    "compress.decode": lambda folder: compress.decode(encoded(folder), folder / "again.onnx"),
    "compress.distill": lambda folder: compress.distill(
        network(), data(), compress.Distill(recipe=BLINK), teacher=network()
    ),
    "compress.encode": encoded,
    "compress.export_onnx": lambda folder: compress.export_onnx(artifact(), folder / "m.onnx"),
    "compress.load_data": lambda folder: compress.load_data("digits"),
    "compress.prune": lambda folder: compress.prune(
        network(), data(), compress.Prune(recipe=None, criterion="l1"), amount=0.2
    ),
    "compress.quantize": lambda folder: compress.quantize(network(), precision="fp16"),
    "compress.run_stages": lambda folder: compress.run_stages(artifact(), [], context(), folder / "stages"),
    "compress.simulated": lambda folder: compress.simulated(
        replace(artifact(), quantization=fixed_quantization(network().workload()))
    ),
    "compress.sizes": lambda folder: compress.sizes(written(folder).read_bytes()),
    "compress.sparsify": lambda folder: compress.sparsify(network(), amount=0.5),
    "compress.store_binary": lambda folder: compress.store_binary(written(folder)),
    "compress.store_half": lambda folder: compress.store_half(written(folder)),
    "compress.store_int4": lambda folder: compress.store_int4(written(folder)),
    "nas.compare": lambda folder: nas.compare(written(folder), written(folder), data="digits"),
    "nas.join_search": lambda folder: refused(
        nas.join_search, "s", storage=f"sqlite:///{folder / 'nothing' / 's.db'}", data="digits"
    ),
    "nas.records": lambda folder: nas.records(study()),
    "nas.search_networks": lambda folder: refused(nas.search_networks, data=str(folder / "nothing"), trials=1),
    "nas.write_report": lambda folder: refused(nas.write_report, folder),
    "nas.candidate": lambda folder: nas.candidate(found := study(), found.trials[0]),
    "nas.pareto_front": lambda folder: nas.pareto_front(study(), "size"),
    "nas.run": lambda folder: refused(nas.run, data=str(folder / "nothing"), trials=1, out=str(folder / "run")),
    "nas.search": lambda folder: study(),
    "nas.select": lambda folder: nas.select("host", top=1),
    "nas.winner": lambda folder: nas.winner(study()),
}


def test_every_public_function_is_called_here() -> None:
    public = {
        f"{package}.{name}"
        for package in PACKAGES
        for name in importlib.import_module(package).__all__
        if inspect.isfunction(getattr(importlib.import_module(package), name))
    }
    assert public == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_it_is_the_same_function_the_second_time(name: str, tmp_path: Path) -> None:
    package, _, function = name.partition(".")
    before = getattr(importlib.import_module(package), function)
    for _ in range(2):
        CALLS[name](tmp_path)
        assert getattr(importlib.import_module(package), function) is before


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_are_marked_as_typed(package: str) -> None:
    assert files(package).joinpath("py.typed").is_file()
