"""Calls that torch's exporter refuses or writes wrongly come out as the module says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hw_profiles.onnx_io.session import open_session
from hw_profiles.torch_io.trace import export

MODULES = {
    "average pool of other windows": (nn.AdaptiveAvgPool2d(3), (2, 16, 11)),
    "more places than there are": (nn.AdaptiveAvgPool2d(7), (2, 6, 4)),
    "one side alone": (nn.AdaptiveAvgPool2d((None, 5)), (2, 6, 12)),
    "largest of other windows": (nn.AdaptiveMaxPool2d((3, 4)), (2, 16, 10)),
    "of one axis": (nn.AdaptiveAvgPool1d(3), (2, 16)),
    "windows of one size": (nn.AdaptiveAvgPool2d(4), (2, 16, 8)),
    "same, dilated": (nn.Conv2d(2, 3, 3, padding="same", dilation=3), (2, 16, 16)),
    "same, uneven": (nn.Conv2d(2, 3, (4, 2), padding="same", dilation=(1, 3)), (2, 16, 16)),
    "same, grouped, of one axis": (nn.Conv1d(2, 4, 4, padding="same", dilation=2, groups=2, bias=False), (2, 16)),
    "valid": (nn.Conv2d(2, 3, 3, padding="valid"), (2, 16, 16)),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_file_says_what_the_module_says(name: str) -> None:
    module, shape = MODULES[name]
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    session = open_session(export(module, shape))
    (made,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(made, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)
