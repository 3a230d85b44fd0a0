"""What is named as enough is enough: numbers are rounded up, never down."""

from __future__ import annotations

import random

from nas.engine.infeasibility import Infeasibility


def test_the_limit_that_is_named_as_enough_would_have_been_kept() -> None:
    draw = random.Random(0)
    for _ in range(200):
        value = draw.uniform(1, 1e4) * 10.0 ** draw.randint(-3, 6)
        found = Infeasibility({"latency_ms": value * draw.uniform(0.1, 0.9)})
        found.add({"latency_ms": value})
        named = float(found.explain().rpartition("latency_ms of ")[2].split()[0])
        assert value * (1 - 1e-12) <= named <= value * (1 + 1e-5)
