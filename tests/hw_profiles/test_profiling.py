"""Profiles: the same network costs the same however it is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from torch import Tensor, nn

from hw_profiles import load_device, profile
from hw_profiles.devices.facts import Fact
from hw_profiles.latency.estimate import precision_of
from hw_profiles.measurement import latency_measurement
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io.reader import read_onnx
from hw_profiles.onnx_io.writer import write_onnx
from hw_profiles.profiling import Profile
from search_spaces import build_model, list_spaces, preset, sample
from tests.parameters import quick

COSTS = ("latency_ms", "latency_low_ms", "latency_high_ms", "peak_ram_bytes", "flash_bytes", "macs", "weight_count")
ARCHS = {
    **{name: preset(name, input_shape=(3, 64, 64)) for name in ("mobilenetv2_035", "mobilenetv3_small_050")},
    **{space: sample(space, seed=3) for space in list_spaces()},
}


def costs(found: Profile) -> dict[str, float]:
    return {name: getattr(found, name) for name in COSTS}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(latency_measurement, "_NOMINAL_ROUNDS", 5)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", quick(ARCHS, ("mobilenetv3_small_050", "tiny")))
def test_profiles_of_arch_module_and_file_agree(name: str, precision: str, tmp_path: Path) -> None:
    arch, device = ARCHS[name], load_device("host")
    workload = arch.workload()
    quantization = fixed_quantization(workload) if precision == "int8" else None
    (tmp_path / "m.onnx").write_bytes(write_onnx(workload, quantization=quantization))
    stated = profile(arch, device, precision)
    assert costs(stated) == pytest.approx(costs(profile(tmp_path / "m.onnx", device, precision)))
    of_module = profile(build_model(arch), device, precision, input_shape=arch.input_shape)
    assert costs(stated) == pytest.approx(costs(of_module))
    assert (stated.params, profile(tmp_path / "m.onnx", device).params) == (of_module.params, None)
    assert stated.latency_source == "estimated"


def test_a_module_may_have_something_that_it_calls_parts() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.parts(x)
            return y

    assert profile(Network(), load_device("host"), input_shape=(3, 8, 8)).macs == 4 * 6 * 6 * 27


def test_what_is_known_of_resnet8() -> None:
    found = profile(preset("resnet8"), load_device("host"), "int8")
    assert (found.params, found.macs) == (78_042, 12_501_632)
    assert found.to_dict()["macs"] == found.macs


@pytest.mark.usefixtures("cache")
def test_a_network_is_measured_in_the_precision_that_was_asked_for(tmp_path: Path) -> None:
    arch, device = preset("resnet8"), load_device("host")
    for precision in ("fp32", "int8"):
        found = profile(arch, device, precision, measured=True)
        assert found.latency_source == "measured"
        assert found.latency_raw_ms is not None
        assert 0 < found.latency_low_ms <= found.latency_ms <= found.latency_high_ms
    path = tmp_path / "m.onnx"
    path.write_bytes(write_onnx(arch.workload()))
    assert profile(path, device, measured=True).latency_source == "measured"


def test_what_the_runtime_takes_is_in_every_profile_of_a_network() -> None:
    facts = {
        name: Fact(value=value, source="a")
        for name, value in {"runtime_ram_bytes": 7000, "runtime_flash_bytes": 9000}.items()
    }
    arch, host = preset("resnet8"), load_device("host")
    before, after = (profile(arch, device, "int8") for device in (host, replace(host, facts=facts)))
    assert (after.peak_ram_bytes - before.peak_ram_bytes, after.flash_bytes - before.flash_bytes) == (7000, 9000)
    assert costs(after) == costs(profile(arch.workload(), replace(host, facts=facts), "int8"))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_type_of_the_input_says_nothing_of_the_arithmetic(precision: str, tmp_path: Path) -> None:
    """A float network may read integers, and one in int8 floats that it prepares first."""
    workload = preset("resnet8").workload()
    data = write_onnx(workload, quantization=fixed_quantization(workload) if precision == "int8" else None)
    (tmp_path / "plain.onnx").write_bytes(data)
    model = onnx.load_from_string(data)
    [image] = model.graph.input
    for node in model.graph.node:
        node.input[:] = ["prepared" if name == image.name else name for name in node.input]
    if precision == "fp32":
        image.type.tensor_type.elem_type = onnx.TensorProto.UINT8
        prepared = [onnx.helper.make_node("Cast", [image.name], ["prepared"], to=onnx.TensorProto.FLOAT)]
    else:
        prepared = [onnx.helper.make_node("Sin", [image.name], ["prepared"])]
    for node in prepared:
        model.graph.node.insert(0, node)
    (tmp_path / "prepared.onnx").write_bytes(model.SerializeToString())
    plain, other = (profile(tmp_path / f"{name}.onnx", load_device("host")) for name in ("plain", "prepared"))
    assert plain.latency_ms < other.latency_ms < 1.2 * plain.latency_ms
    assert precision_of(read_onnx(tmp_path / "prepared.onnx")) == precision


def test_precisions_are_named() -> None:
    with pytest.raises(ValueError, match="precision must be one of fp32, int8, got 'int4'"):
        profile(preset("resnet8"), load_device("host"), "int4")


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    for model in (tmp_path / "gone.onnx", str(tmp_path / "gone.onnx")):
        with pytest.raises(ValueError, match=r"gone\.onnx: cannot be read"):
            profile(model, load_device("host"))
