"""Random networks for measurements: short ones of one resolution, long ones that shrink the image.

Widths are on no grid. In a short network every kernel is in the caches and known to the branch predictor, in a long one
few are, in a deep one of hundreds of nodes none, and all of these happen in networks that people use.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from hw_profiles.network.workload import Op, Workload, WorkloadBuilder

_MOST_MACS = {False: 60e6, True: 300e6}
_MOST_VALUES = {False: 600_000, True: 1_200_000}  # of the largest tensor
_SIDES = (4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112)
_RESOLUTIONS = (32, 48, 64, 96, 128, 160, 192, 224)
_ACTIVATIONS = ("relu", "relu6", "hard_swish", "silu")

Draw = random.Random
Family = Callable[["_Network", str], str]


def micro_network(seed: int) -> Workload:
    """A network of random blocks; the same seed gives the same one. Of three seeds one gives a short network, one a
    long and one a deep one; some are of attention.

    >>> len(micro_network(0).ops) < len(micro_network(1).ops)
    True
    """
    draw = Draw(seed)
    long = is_long(seed)
    while True:
        network = _Network(draw)
        x = network.attention() if is_attention(seed) else (network.short, network.long, network.deep)[seed % 3]()
        x = network.builder.flatten("flatten", network.builder.global_avg_pool("pool", x))
        workload = network.builder.build(network.builder.linear("classifier", x, draw.choice((2, 10, 10, 100, 1000))))
        largest = max(math.prod(shape) for shape in workload.shapes.values())
        if workload.macs <= _MOST_MACS[long] and largest <= _MOST_VALUES[long]:
            return workload


def is_long(seed: int) -> bool:
    """Whether the network of that seed is a long one of convolutions, as people use them."""
    return seed % 3 > 0 and not is_attention(seed)


def is_attention(seed: int) -> bool:
    """Whether the network of that seed is one of attention; they are written in float32 only."""
    return seed % 20 == 19


class _Network:
    """A network in the making: its own preferences for activations and squeeze-excite, and a count for names."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.preferred = draw.choice(_ACTIVATIONS)
        self.squeeze = draw.choice((0.0, 0.0, 0.5, 1.0))
        self.multiple = draw.choice((1, 1, 2, 4, 8, 8))
        self.count = 0
        self.builder: WorkloadBuilder

    def short(self) -> str:
        """One to four blocks of one family behind a cheap first convolution."""
        draw = self.draw
        family = draw.choices(list(_FAMILIES), weights=list(_FAMILIES.values()))[0]
        x = self._stem(draw.choice(_SIDES), self.width(4, 320), 1, 1)
        for _ in range(draw.choice((1, 2, 3))):
            x = family(self, x)
        return x

    def long(self) -> str:
        """Three to five stages of blocks of any family, at half the resolution each."""
        draw = self.draw
        x = self._stem(draw.choice(_RESOLUTIONS), self.width(6, 40), 3, draw.choice((1, 2, 2)))
        channels = float(self.builder.shapes[x][1])
        favorite = draw.choice((_inverted, _inverted, _dense, _fused_inverted, _separable))
        for _ in range(draw.choice((3, 4, 5))):
            if self.builder.shapes[x][2] >= 4:
                channels *= draw.uniform(1.0, 2.6)
                x = self.depthwise(x, 2) if draw.random() < 0.5 else self.conv(x, self.round(channels), 3, 2)
            for _ in range(draw.choice((1, 2, 3))):
                family = favorite if draw.random() < 0.7 else draw.choice(list(_FAMILIES))
                x = family(self, x)
        if draw.random() < 0.5:
            x = self.conv(x, self.width(64, 1280), 1)
        return x

    def deep(self) -> str:
        """Four to six stages of up to six blocks, nearly all of one family, as networks for larger images have."""
        draw = self.draw
        x = self._stem(draw.choice(_RESOLUTIONS), self.width(6, 40), 3, draw.choice((1, 2, 2)))
        channels = float(self.builder.shapes[x][1])
        favorite = draw.choice((_inverted, _inverted, _inverted, _dense, _fused_inverted, _separable))
        for _ in range(draw.choice((4, 5, 6))):
            channels *= draw.uniform(1.0, 1.9)
            if self.builder.shapes[x][2] >= 4 and draw.random() < 0.8:
                x = self.conv(x, self.round(channels), 3, 2) if draw.random() < 0.5 else self.depthwise(x, 2)
            x = self.conv(x, self.round(channels), 1, act=False)
            for _ in range(draw.choice((1, 2, 3, 4, 5, 6))):
                x = (favorite if draw.random() < 0.9 else draw.choice(list(_FAMILIES)))(self, x)
        return self.conv(x, self.width(64, 1280), 1)

    def attention(self) -> str:
        """Products of tokens with each other and with weights, and what stands between them in a transformer."""
        draw = self.draw
        x = self._stem(draw.choice((7, 8, 10, 14, 16, 20, 24, 28, 32)), self.width(1, 12), 1, 1)
        for _ in range(draw.choice((1, 2, 3, 4))):
            wide = self.linear(self.normalized(x), self.width(16, 512))
            wide = self.builder.activation(self.name("gelu"), wide, "gelu")
            y = self.linear(wide, self.builder.shapes[x][3])
            x = self.builder.binary(self.name("add"), "add", x, y)
            scores = self.builder.activation(self.name("softmax"), self.product(x, x), "softmax")
            x = self.builder.binary(self.name("add"), "add", x, self.product(scores, x))
            if draw.random() < 0.3:
                _, channels, *sides = self.builder.shapes[x]
                op = Op(self.name("concat"), "concat", (x, y))
                x = self.builder.append(op, (1, 2 * channels, *sides))
        return x

    def normalized(self, x: str) -> str:
        shape = self.builder.shapes[x]
        op = Op(self.name("norm"), "activation", (x,), weight_shape=shape[3:], bias=True, function="layer_norm")
        return self.builder.append(op, shape)

    def linear(self, x: str, features: int) -> str:
        return self.builder.linear(self.name("linear"), x, features, bias=False)

    def product(self, x: str, y: str) -> str:
        return self.builder.matmul(self.name("product"), x, y)

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def channels(self, x: str) -> int:
        return self.builder.shapes[x][1]

    def width(self, low: int, high: int) -> int:
        """A number of channels, log-uniform."""
        return self.round(math.exp(self.draw.uniform(math.log(low), math.log(max(high, low + 1)))))

    def round(self, channels: float) -> int:
        return max(1, round(channels / self.multiple)) * self.multiple

    def act(self, x: str) -> str:
        chosen = self.preferred if self.draw.random() < 0.8 else self.draw.choice(_ACTIVATIONS)
        return self.builder.activation(f"{x}.act", x, chosen)

    def conv(self, x: str, channels: int, kernel_size: int = 1, stride: int = 1, act: bool = True) -> str:
        y = self.builder.conv(self.name("conv"), x, channels, kernel_size=kernel_size, stride=stride)
        return self.act(y) if act else y

    def depthwise(self, x: str, stride: int = 1) -> str:
        channels, size = self.channels(x), self.draw.choice((3, 3, 5, 7))
        return self.act(
            self.builder.conv(self.name("depthwise"), x, channels, kernel_size=size, stride=stride, groups=channels)
        )

    def add(self, x: str, y: str) -> str:
        if self.builder.shapes[x] != self.builder.shapes[y]:
            return y
        z = self.builder.binary(self.name("add"), "add", x, y)
        return self.act(z) if self.draw.random() < 0.3 else z

    def squeeze_excite(self, x: str) -> str:
        if self.draw.random() >= self.squeeze:
            return x
        builder, name = self.builder, self.name("se")
        y = builder.global_avg_pool(f"{name}.pool", x)
        y = self.conv(y, max(1, self.channels(x) // self.draw.choice((4, 8, 16, 24))))
        y = self.conv(y, self.channels(x), act=False)
        y = builder.activation(f"{name}.gate", y, self.draw.choice(("sigmoid", "hard_sigmoid")))
        return builder.binary(f"{name}.scale", "mul", x, y)

    def _stem(self, side: int, channels: int, kernel_size: int, stride: int) -> str:
        self.builder = WorkloadBuilder("input", (1, self.draw.choice((1, 3, 3, 3)), side, side))
        return self.conv("input", channels, kernel_size, stride)


def _dense(network: _Network, x: str) -> str:
    size = network.draw.choice((3, 3, 3, 5))
    channels = network.channels(x) if network.draw.random() < 0.5 else network.width(4, 384)
    y = network.conv(x, channels, size)
    return network.add(x, network.conv(y, network.channels(x), 3, act=False)) if network.draw.random() < 0.5 else y


def _pointwise(network: _Network, x: str) -> str:
    return network.conv(x, network.width(4, 512))


def _separable(network: _Network, x: str) -> str:
    channels = network.channels(x) if network.draw.random() < 0.5 else network.width(8, 256)
    y = network.squeeze_excite(network.depthwise(x))
    return network.add(x, network.conv(y, channels, act=network.draw.random() < 0.5))


def _inverted(network: _Network, x: str) -> str:
    channels = network.channels(x)
    y = network.conv(x, network.width(channels, 6 * channels + 8))
    y = network.squeeze_excite(network.depthwise(y))
    out = channels if network.draw.random() < 0.6 else network.width(4, 320)
    return network.add(x, network.conv(y, out, act=False))


def _fused_inverted(network: _Network, x: str) -> str:
    channels = network.channels(x)
    y = network.squeeze_excite(network.conv(x, network.width(channels, 4 * channels + 8), 3))
    out = channels if network.draw.random() < 0.6 else network.width(4, 256)
    return network.add(x, network.conv(y, out, act=False))


def _pools(network: _Network, x: str) -> str:
    kind, stride = network.draw.choice(("max_pool", "avg_pool")), network.draw.choice((1, 2))
    if network.builder.shapes[x][2] < 4:
        return x
    y = network.builder.pool(network.name("window"), kind, x, kernel_size=stride + 1, stride=stride)
    return network.conv(y, network.width(8, 256))


def _elementwise(network: _Network, x: str) -> str:
    function = network.draw.choice((*_ACTIVATIONS, "sigmoid", "hard_sigmoid"))
    y = network.builder.activation(network.name("function"), x, function)
    return network.builder.binary(network.name("add"), "add", x, y)


_FAMILIES: dict[Family, float] = {
    _inverted: 6, _separable: 2, _dense: 4, _pointwise: 2, _fused_inverted: 4, _pools: 1, _elementwise: 0.5
}  # fmt: skip
