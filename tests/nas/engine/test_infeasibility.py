"""What is named as enough is enough: numbers are rounded up, never down."""

from __future__ import annotations

import math
import random

from nas.engine.infeasibility import Infeasibility


def test_the_limit_that_is_named_as_enough_would_have_been_kept() -> None:
    draw = random.Random(0)
    for _ in range(200):
        value = draw.uniform(1, 1e4) * 10.0 ** draw.randint(-3, 6)
        found = Infeasibility({"latency_ms": value * draw.uniform(0.1, 0.9)})
        found.add({"latency_ms": value})
        named = float(found.explain().rpartition("latency at most ")[2].split()[0])
        assert value * (1 - 1e-12) <= named <= value * (1 + 1e-5)


def test_what_is_enough_is_told_as_options_of_the_command_line() -> None:
    found = Infeasibility({"peak_ram_bytes": 1000, "flash_bytes": 2_000_000})
    found.add({"peak_ram_bytes": 1500.5, "flash_bytes": 3_000_000})
    assert "no single change is enough" in found.explain()
    assert found.explain().endswith("(--ram 1501B --flash 3000000B)")
    found.add({"peak_ram_bytes": 900, "flash_bytes": 12_345_678})
    assert found.explain().endswith("weight size at most 12,345,700 bytes (--flash 12345700B)")
    other = Infeasibility({"latency_ms": 1.0, "size": 5})
    other.add({"latency_ms": 2.5, "size": 6})
    assert "--" not in other.explain()  # a limit that no option has


def test_infinite_costs_are_no_change_that_would_work() -> None:
    """A cost function may say so that a candidate is impossible."""
    found = Infeasibility({"flash_bytes": 1000, "latency_ms": 1})
    found.add({"flash_bytes": math.inf, "latency_ms": 0.5})
    found.add({"flash_bytes": math.inf, "latency_ms": math.inf})
    assert found.explain() == (
        "2 candidates were checked; the binding limit is weight size (at most 1,000 bytes); the smallest value found was "
        "inf bytes; the smallest value found for latency was 0.5 ms (at most 1 ms)"
    )
    found.add({"flash_bytes": 3000, "latency_ms": 0.5})
    assert found.explain().endswith(
        "the smallest change of one limit that would work: weight size at most 3,000 bytes (--flash 3000B)"
    )
