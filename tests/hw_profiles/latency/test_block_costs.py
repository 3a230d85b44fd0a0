"""A network put together from its parts costs what it costs as a whole, and only what is new is worked out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hw_profiles import Device, load_device, profile
from hw_profiles.latency import block_costs
from hw_profiles.latency.estimate import estimate
from hw_profiles.memory.planner import peak_of_part, plan
from hw_profiles.network.workload import Workload, WorkloadBuilder
from hw_profiles.profiling import Profile
from hw_profiles.runtimes.fusion import fuse
from hw_profiles.runtimes.kernels import Kernel
from search_spaces import Arch, list_spaces, load_space, preset
from tests.parameters import quick

NETWORKS = {
    **{name: preset(name, input_shape=(3, 40, 24)) for name in ("resnet8", "mobilenetv3_small_050")},
    **{
        f"{name}-{i}": load_space(name, input_shape=(3, 32, 32), num_classes=10).sample(i)
        for name in list_spaces()
        for i in range(4)
    },
}


def fresh(device: Device) -> Device:
    """The same device, which has seen no network."""
    return replace(device)


def numbers(found: Profile) -> dict[str, float]:
    return {name: value for name, value in found.to_dict().items() if isinstance(value, int | float)}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", quick(NETWORKS, [name for name in NETWORKS if not name.endswith(("-1", "-2", "-3"))]))
def test_the_parts_cost_what_the_whole_does(name: str, precision: str) -> None:
    """The whole is fused, planned, estimated and counted in one piece."""
    network, device = NETWORKS[name], load_device("host")
    workload = network.workload().with_precision(precision)
    kernels = fuse(workload)
    whole, found = estimate(workload, kernels, device), profile(network, device, precision)
    assert (found.latency_ms, found.latency_high_ms) == pytest.approx((whole.ms, whole.high_ms), rel=1e-9)
    assert found.peak_ram_bytes == plan(workload, kernels).peak_bytes
    counted = (workload.macs, workload.params, workload.weight_count, workload.weight_bytes)
    assert (found.macs, found.params, found.weight_count, found.flash_bytes) == counted


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_was_seen_before_changes_nothing(precision: str) -> None:
    """Networks share blocks at other places, in longer and shorter networks, and in both orders."""
    device = load_device("host")
    networks = list(NETWORKS.values())
    forth = [profile(network, device, precision) for network in networks]
    back = [profile(network, device, precision) for network in reversed(networks)]
    assert back[::-1] == forth
    for network, found in zip(networks, forth, strict=True):
        assert numbers(found) == pytest.approx(numbers(profile(network, fresh(device), precision)), rel=1e-9)


@pytest.fixture
def worked_out(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The outputs of the parts that are worked out from now on."""
    outputs = []
    fuse_part = block_costs.fuse_part

    def noted(workload: Workload, entry: str, *, ends: bool) -> tuple[tuple[Kernel, ...], str]:
        outputs.append(workload.output)
        return fuse_part(workload, entry, ends=ends)

    monkeypatch.setattr(block_costs, "fuse_part", noted)
    return outputs


def test_only_the_changed_block_is_worked_out(worked_out: list[str]) -> None:
    network, device = preset("mobilenetv2_035", input_shape=(3, 32, 32)), fresh(load_device("host"))
    profile(network, device, "int8")
    assert len(worked_out) == len({id(part) for part in network.parts()})
    worked_out.clear()
    profile(with_larger_kernel(network, 3), device, "int8")
    assert len(worked_out) == 1
    profile(network, device, "int8")
    assert len(worked_out) == 1


def with_larger_kernel(network: Arch, stage: int) -> Arch:
    """The last block of one stage with windows of 5 × 5."""
    *others, last = network.stages[stage]
    changed = (*others, replace(last, kernel_size=5))
    return replace(network, stages=(*network.stages[:stage], changed, *network.stages[stage + 1 :]))


def test_many_parts_are_forgotten_and_worked_out_again(worked_out: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    device, space = fresh(load_device("host")), load_space("tiny", input_shape=(3, 32, 32), num_classes=10)
    monkeypatch.setattr(block_costs, "_MOST_REMEMBERED", 12)
    networks = [space.sample(seed) for seed in range(6)]
    first = [profile(network, device, "int8") for network in networks]
    worked_out.clear()
    assert profile(networks[0], device, "int8") == first[0]
    assert len(worked_out) == len({id(part) for part in networks[0].parts()})


def test_a_part_that_does_nothing_holds_what_passes_through() -> None:
    nothing = WorkloadBuilder("input", (1, 4, 8, 8)).build("input")
    assert peak_of_part(nothing, (), 1024, ()) == 1024


def test_the_callers_tensors_are_not_written_over() -> None:
    """A ReLU between two seams needs one tensor; at either end of the network, where the caller holds one, two."""
    builder = WorkloadBuilder("input", (1, 4, 8, 8))
    workload = builder.build(builder.activation("relu", "input", "relu"))
    one = 4 * 4 * 8 * 8
    for kept, tensors in (((), 1), (("input",), 2), (("relu",), 2), (("input", "relu"), 2)):
        assert peak_of_part(workload, fuse(workload), one, kept) == tensors * one, kept
