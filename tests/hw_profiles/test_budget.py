"""What a user can afford."""

from __future__ import annotations

import pytest

from hw_profiles import Budget, load_device, profile
from hw_profiles.budget import violations
from search_spaces import preset


def test_budgets_say_how_far_off_a_profile_is() -> None:
    found = profile(preset("resnet8"), load_device("host"), "int8")
    excess = Budget(latency_ms=found.latency_ms / 2, peak_ram_bytes=found.peak_ram_bytes).violations(found)
    assert excess == {"latency_ms": pytest.approx(1.0), "peak_ram_bytes": 0.0}
    assert Budget(flash_bytes=2 * found.flash_bytes).violations(found) == {"flash_bytes": pytest.approx(-0.5)}
    assert Budget().violations(found) == {}


def test_what_nobody_knows_cannot_be_limited() -> None:
    found = profile(preset("resnet8"), load_device("host"), "int8")
    with pytest.raises(ValueError, match="energy_mj is limited, but its value is not known"):
        Budget(energy_mj=1).violations(found)
    with pytest.raises(ValueError, match="macs is limited, but its value is not known; available: params"):
        violations({"params": 3.0}, {"macs": 1.0})


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf"), True, "5"])
def test_budgets_are_positive_numbers(limit: float) -> None:
    with pytest.raises(ValueError, match=r"Budget.latency_ms must be a positive number"):
        Budget(latency_ms=limit)
