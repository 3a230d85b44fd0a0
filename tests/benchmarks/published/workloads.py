"""The operations of networks whose latencies others have published, by the names that they use."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

from hw_profiles.network.workload import Workload, WorkloadBuilder
from search_spaces import preset
from search_spaces.layout import round_width

_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
_FD = ((64, 2), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 4, (1024, 1))
_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_TRACED = {
    "resnet18": "resnet18", "resnet34": "resnet34", "resnet50": "resnet50", "vgg16": "vgg16", "mixnet-s": "mixnet_s",
    "mixnet-m": "mixnet_m", "mixnet-l": "mixnet_l", "vit-tiny": "vit_tiny_patch16_224", "movilevit-s": "mobilevit_s",
    "efficientformer-l1": "efficientformer_l1", "mobilenetv3-small": "mobilenetv3_small_100",
    "mobilenetv3-large": "mobilenetv3_large_100", "mobilenet_v3": "mobilenetv3_large_100",
    "proxylessnasnet": "mnasnet_100",
}  # fmt: skip
"""Names of timm; ``mobilenet_v3`` and ``proxylessnasnet`` are near relatives, scaled to the published MACs."""
_TORCHVISION = {"googlenet": "googlenet", "alexnet": "alexnet", "squeezenet": "squeezenet1_1"}
_BACKBONES = {
    "mobilenet_ssd": "mobilenet", "mobilenet_yolo": "mobilenet", "mobilenetv2_yolov3": "mobilenet_v2",
    "squeezenet_ssd": "squeezenet",
}  # fmt: skip
"""Detectors, taken as their backbones scaled to the published MACs of each kind."""


class _Net:
    """A chain of layers with ReLU, which most of these are."""

    def __init__(self, side: tuple[int, int] | int, channels: int = 3) -> None:
        height, width = (side, side) if isinstance(side, int) else side
        self.builder = WorkloadBuilder("input", (1, channels, height, width))
        self.x = "input"
        self.count = 0

    @property
    def channels(self) -> int:
        return self.builder.shapes[self.x][1]

    def _name(self) -> str:
        self.count += 1
        return f"l{self.count}"

    def conv(
        self, out: int, kernel: int | tuple[int, int] = 3, stride: int | tuple[int, int] = 1, *, groups: int = 1,
        relu: bool = True,
    ) -> str:  # fmt: skip
        self.x = self.builder.conv(
            self._name(), self.x, out, kernel_size=kernel, stride=stride, groups=groups, normalized=True
        )
        if relu:
            self.x = self.builder.activation(self._name(), self.x, "relu6")
        return self.x

    def depthwise(self, kernel: int, stride: int) -> str:
        return self.conv(self.channels, kernel, stride, groups=self.channels)

    def add(self, a: str, b: str, *, relu: bool = False) -> str:
        self.x = self.builder.binary(self._name(), "add", a, b)
        if relu:
            self.x = self.builder.activation(self._name(), self.x, "relu")
        return self.x

    def head(self, classes: int) -> Workload:
        self.x = self.builder.global_avg_pool(self._name(), self.x)
        self.x = self.builder.flatten(self._name(), self.x)
        self.builder.linear(self._name(), self.x, classes)
        return self.builder.build()


def mobilenet_v1(width: float, side: int, classes: int = 1001, channels: int = 3, *, fast: bool = False) -> Workload:
    """MobileNet (arXiv:1704.04861), or its fast-downsampling variant (arXiv:1802.03750)."""
    net = _Net(side, channels)
    net.conv(round_width(32 * width), 3, 2)
    for out, stride in _FD if fast else _V1:
        net.depthwise(3, stride)
        net.conv(round_width(out * width), 1)
    return net.head(classes)


def mobilenet_v2(width: float, side: int, classes: int = 1001) -> Workload:
    """MobileNetV2 (arXiv:1801.04381)."""
    net = _Net(side)
    net.conv(round_width(32 * width), 3, 2)
    for expand, out, repeats, first_stride in _V2:
        for i in range(repeats):
            _inverted_residual(net, expand, round_width(out * width), first_stride if i == 0 else 1)
    net.conv(round_width(1280 * max(1.0, width)), 1)
    return net.head(classes)


def _inverted_residual(net: _Net, expand: int, out: int, stride: int) -> None:
    before, channels = net.x, net.channels
    if expand > 1:
        net.conv(channels * expand, 1)
    net.depthwise(3, stride)
    after = net.conv(out, 1, relu=False)
    if stride == 1 and out == channels:
        net.add(before, after)


def resnet_v1(depth: int, side: int = 32, classes: int = 10) -> Workload:
    """The small ResNets of CIFAR-10 (arXiv:1512.03385) as MLPerf Tiny has them: 8 or 32 layers."""
    net = _Net(side)
    net.conv(16)
    blocks = 1 if depth == 8 else (depth - 2) // 6
    for stage, out in enumerate((16, 32, 64)):
        for i in range(blocks):
            stride = 2 if stage and i == 0 else 1
            before, channels = net.x, net.channels
            net.conv(out, 3, stride)
            after = net.conv(out, relu=False)
            if stride > 1 or channels != out:
                net.x = before
                before = net.conv(out, 1, stride, relu=False)
            net.add(before, after, relu=True)
    return net.head(classes)


def ds_cnn() -> Workload:
    """Keyword spotting of MLPerf Tiny (arXiv:1711.07128)."""
    net = _Net((49, 10), 1)
    net.x = net.builder.conv("first", net.x, 64, kernel_size=(10, 4), stride=2, padding=(4, 1, 5, 1), normalized=True)
    net.x = net.builder.activation("first.act", net.x, "relu")
    for _ in range(4):
        net.depthwise(3, 1)
        net.conv(64, 1)
    return net.head(12)


def autoencoder() -> Workload:
    """Anomaly detection of MLPerf Tiny: fully connected layers."""
    builder = WorkloadBuilder("input", (1, 640))
    x = "input"
    for i, features in enumerate((128, 128, 128, 128, 8, 128, 128, 128, 128, 640)):
        x = builder.linear(f"l{i}", x, features)
        if i < 9:
            x = builder.activation(f"a{i}", x, "relu")
    return builder.build()


LIVE, READ, ALL = "live", "read", "all"
"""Which edges of a cell a runtime computes: those on a way from the cell's input to its output; those on a way to its
output, the constant zeros that some of them read included; or all, the multiplications by zero of ``none`` included."""


def nas_bench_201(code: str, classes: int = 10, channels: int = 16, cells: int = 5, computed: str = LIVE) -> Workload:
    """A network of NAS-Bench-201 (arXiv:2001.00326): ``code`` holds the operations of the edges 0-1, 0-2, 1-2, 0-3, 1-3,
    2-3: 0 none, 1 skip, 2 1x1, 3 3x3, 4 average pooling. ``computed`` says which edges are part of it.
    """
    net = _Net(32)
    net.conv(channels, relu=False)
    for stage in range(3):
        if stage:
            _reduction(net, channels * 2**stage)
        for _ in range(cells):
            _cell(net, code, computed)
    net.x = net.builder.activation(net._name(), net.x, "relu")
    return net.head(classes)


_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def _cell(net: _Net, code: str, computed: str) -> None:
    alive = set(_EDGES) if computed == ALL else _alive(code, from_input=computed == LIVE)
    nodes: dict[int, str] = {0: net.x}
    for target in (1, 2, 3):
        for (source, end), operation in zip(_EDGES, code, strict=True):
            if end == target and (source, end) in alive:
                found = _operation(net, nodes.get(source, nodes[0]), operation)
                nodes[target] = net.add(nodes[target], found) if target in nodes else found
    if 3 not in nodes:  # nothing reaches the output: it is zero, the input scaled by nothing
        nodes[3] = net.builder.activation(net._name(), nodes[0], "relu")
    net.x = nodes[3]


def depends_on_its_input(code: str) -> bool:
    """Whether a way leads from the input of the cell to its output.

    >>> depends_on_its_input("300000"), depends_on_its_input("000100")
    (False, True)
    """
    return bool(_alive(code))


def _alive(code: str, from_input: bool = True) -> set[tuple[int, int]]:
    """Edges on a way from the input of the cell to its output, or from anywhere to its output."""
    edges = {edge for edge, operation in zip(_EDGES, code, strict=True) if operation != "0"}
    reached, to_output = {0} if from_input else {0, 1, 2}, {3}
    for _ in range(3):
        reached |= {end for start, end in edges if start in reached}
        to_output |= {start for start, end in edges if end in to_output}
    return {(start, end) for start, end in edges if start in reached and end in to_output}


def _operation(net: _Net, x: str, operation: str) -> str:
    net.x = x
    if operation == "1":
        return x
    if operation == "0":  # a multiplication by zero moves as many numbers
        return net.builder.activation(net._name(), x, "relu")
    if operation == "4":
        net.x = net.builder.pool(net._name(), "avg_pool", x, kernel_size=3, stride=1, padding=(1, 1, 1, 1))
        return net.x
    net.x = net.builder.activation(net._name(), x, "relu")
    return net.conv(net.channels, 1 if operation == "2" else 3, relu=False)


def _reduction(net: _Net, out: int) -> None:
    before = net.x
    net.conv(out, 3, 2)
    after = net.conv(out, relu=False)
    net.x = net.builder.pool(net._name(), "avg_pool", before, kernel_size=2, stride=2)
    net.add(net.conv(out, 1, relu=False), after)


def single_layer(kind: str, channels: int, out: int, sizes: Sequence[tuple[int, int]]) -> Workload | None:
    """A layer that was measured alone; ``sizes`` are those of its kernel, stride and input."""
    kernel, stride, size = sizes
    if kind == "fc":
        builder = WorkloadBuilder("input", (1, channels))
        builder.linear("layer", "input", out)
        return builder.build()
    if kind not in ("conv", "conv1x1", "dwconv"):
        return None
    builder = WorkloadBuilder("input", (1, channels, *size))
    groups = channels if kind == "dwconv" else 1
    builder.conv("layer", "input", out, kernel_size=kernel, stride=stride, groups=groups)
    return builder.build()


@cache
def published(name: str, side: int, width: float = 1.0, classes: int = 1000) -> Workload | None:
    """The network of a published name at a resolution; None where nobody here knows what it is."""
    name = re.sub(r"[_-]int8$", "", name.lower())
    name = _BACKBONES.get(name, name)
    for known, build in _BUILDERS.items():
        if name == known:
            return build(width, side, classes)
    if name in _TRACED:
        return _timm(_TRACED[name], side)
    return _torchvision(_TORCHVISION[name], side) if name in _TORCHVISION else None


_BUILDERS: dict[str, Callable[[float, int, int], Workload]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "fdmobilenet": lambda width, side, classes: mobilenet_v1(width, side, classes, fast=True),
    "resnet8": lambda width, side, classes: preset("resnet8", num_classes=classes).workload(),
    "resnet32": lambda width, side, classes: resnet_v1(32, side, classes),
}


def _timm(name: str, side: int) -> Workload:
    from hw_profiles.torch_io.timm_models import trace_timm

    return trace_timm(f"timm:{name}", (3, side, side))


def _torchvision(name: str, side: int) -> Workload:
    import torch
    import torchvision

    from hw_profiles.torch_io.trace import trace

    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):
        module = getattr(torchvision.models, name)(**options).eval()
    return trace(module, (3, side, side))
