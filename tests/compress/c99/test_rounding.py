"""The rounding of generated code beside numpy's."""

from __future__ import annotations

import subprocess
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

PROGRAM = """
#include <stdint.h>
#include <stdio.h>
#include <string.h>
%s
int main(void) {
    float x;
    while (fread(&x, sizeof x, 1, stdin) == 1) {
        const int8_t y = kernel_rounded(x * 1.0f, -100.0f, 155.0f, -28);
        fwrite(&y, 1, 1, stdout);
    }
    return 0;
}
"""


@pytest.mark.parametrize(
    "flags", [["-O0"], ["-O3", "-march=native", "-ffp-contract=fast"]], ids=["plain", "contracted"]
)
def test_every_number_is_rounded_half_to_even_and_saturated(flags: list[str], tmp_path: Path) -> None:
    source = files("compress.c99").joinpath("sources", "rounded.c").read_text(encoding="utf-8")
    (tmp_path / "p.c").write_text(PROGRAM % source)
    subprocess.run(["cc", "-std=c99", *flags, "-o", "p", "p.c"], cwd=tmp_path, check=True)
    halves = np.arange(-600, 601, dtype=np.float32) / 2
    generator = np.random.default_rng(0)
    anything = generator.integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = (generator.random(200_000) * 400 - 200).astype(np.float32)
    steps = [np.nextafter(halves, np.float32(end)) for end in (-np.inf, np.inf)]
    x = np.concatenate([halves, *steps, near, anything[np.isfinite(anything)], [np.float32(np.inf), -np.inf]])
    x = x.astype(np.float32)
    done = subprocess.run([str(tmp_path / "p")], input=x.tobytes(), capture_output=True, check=True)
    expected = np.rint(np.clip(x, -100, 155)) - 28
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.int8), expected.astype(np.int8))
