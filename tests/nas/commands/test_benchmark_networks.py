"""The networks that devices are measured by."""

from __future__ import annotations

from compress.pruning.arch_widths import prunable_groups
from hw_profiles.network.quantization import fixed_quantization
from nas.commands.benchmark_networks import narrowed, space_network
from search_spaces import list_spaces, sample


def test_a_number_always_gives_the_same_network_and_others_give_others() -> None:
    networks = [space_network(number) for number in range(16)]
    assert [network.ops for network in networks] == [space_network(number).ops for number in range(16)]
    assert len({network.ops for network in networks}) == 16
    assert len({network.shapes["input"] for network in networks}) > 4


def test_every_second_round_of_the_spaces_is_of_widths_on_no_grid() -> None:
    """As a pruning leaves them; a network as it was sampled has multiples of 8 wherever it is wide."""
    spaces = len(list_spaces())
    odd = [sum(op.out_channels % 8 > 0 for op in space_network(n).ops if op.kind == "conv") for n in range(2 * spaces)]
    assert max(odd[:spaces]) < min(odd[spaces:])


def test_all_of_them_can_be_written_in_both_precisions() -> None:
    for number in range(8):
        assert fixed_quantization(space_network(number).with_precision("int8")).activations


def test_a_narrowed_network_keeps_its_form() -> None:
    arch = sample("mobilenet", seed=3, input_shape=(3, 32, 32), num_classes=10)
    thinner = narrowed(arch, 3)
    before, after = prunable_groups(arch), prunable_groups(thinner)
    assert [op.name for op in arch.workload().ops] == [op.name for op in thinner.workload().ops]
    shares = [after.width[group] / before.width[group] for group in before.prunable()]
    assert 0.3 < min(shares) < max(shares) <= 1
