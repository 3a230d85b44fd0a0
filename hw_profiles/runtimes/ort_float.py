"""Fusion rules of ONNX Runtime in float32, as seen in the graphs that version 1.32 saves on x86."""

from __future__ import annotations

from hw_profiles.network.workload import VIEWS, Op, Workload
from hw_profiles.runtimes.kernels import POOLS, Fuser, Kernel, onnx_name

BLOCK = 16
"""Channels that ONNX Runtime keeps together on x86 with AVX-512."""
_ALIGNED = 4  # a convolution of a number of channels that is no multiple of this stays in the plain layout
_AFTER_BLOCKED_CONV = ("relu", "relu6", "clip", "sigmoid", "hard_sigmoid", "hard_swish", "tanh", "leaky_relu")
_AFTER_BLOCKED_SUM = ("relu", "hard_swish")
_AFTER_PLAIN_CONV = ("relu", "relu6", "clip", "sigmoid", "hard_sigmoid", "tanh", "leaky_relu")
_KEEP_BLOCKS = ("relu", "sigmoid", "silu", "hard_sigmoid", "hard_swish", "tanh")


class FloatFuser(Fuser):
    """ONNX Runtime in float32: convolutions keep their channels in blocks."""

    def __init__(self, workload: Workload, entry: str = "") -> None:
        super().__init__(workload)
        self.blocked = {workload.input} if entry == "blocked" else set()  # tensors that a kernel left in blocks
        self.produced = {*workload.inputs}
        self.copies: set[str] = set()
        self.stands: dict[str, str] = {}  # tensors that another one stands in for
        self.views = {op.name: op.inputs[0] for op in workload.ops if op.kind in VIEWS}

    def run(self, *, ends: bool = True) -> tuple[Kernel, ...]:
        """All kernels in order; where the network ends, its output is in the plain layout."""
        for op in self.workload.ops:
            if op.name not in self.taken:
                self.add(op)
        if ends:
            for output in self.outputs:
                self.plain(output)
        return tuple(self.kernels)

    def add(self, op: Op) -> None:
        """The kernel of an operation and of those that it takes up, and the copies that it needs."""
        if op.kind == "conv" and len(op.weight_shape) == 4 and len(op.inputs) == 1:
            self._conv(op)
        elif op.kind == "add" and (conv := self._waiting_conv(op)) is not None:
            self._sum_later(conv, op)
        elif op.kind in VIEWS:
            self.plain(op.inputs[0])
            self.produced.add(op.name)
        else:
            self._other(op)

    def exit(self) -> str:
        """The layout of the output."""
        return "blocked" if self.workload.output in self.blocked else "plain"

    def _conv(self, op: Op) -> None:
        layout = _conv_layout(op)
        group = [op]
        after = self.only_reader(op.name)
        if after is not None and after.kind == "add" and self._summand_is_there(op, after, layout):
            self.take(group, after)
        self._emit_conv(group, layout)

    def _emit_conv(self, group: list[Op], layout: str) -> None:
        op = group[0]
        after = self.only_reader(group[-1].name)
        absorbed: tuple[str, ...] = _AFTER_PLAIN_CONV
        if layout != "plain":
            absorbed = _AFTER_BLOCKED_SUM if len(group) > 1 else _AFTER_BLOCKED_CONV
        if after is not None and after.kind == "activation" and after.function in absorbed:
            self.take(group, after)
        read = self._in_blocks if layout == "blocked" else self.plain
        inputs = [read(op.inputs[0])]
        if len(group) > 1 and group[1].kind == "add":
            summand = next(name for name in group[1].inputs if name != op.name)
            inputs.append(self.plain(summand) if layout == "plain" else summand)
        output = group[-1].name
        self.produced.add(output)
        if layout != "plain":
            self.blocked.add(output)
        node = "FusedConv" if layout == "plain" and len(group) > 1 else "Conv"
        self.emit(group, inputs, layout, (node,), self._bytes(output))

    def _summand_is_there(self, conv: Op, add: Op, layout: str) -> bool:
        other = [name for name in add.inputs if name != conv.name]
        if len(other) != 1 or not self._same_shape(add):
            return False
        return other[0] in (self.produced if layout == "plain" else self.blocked)

    def _waiting_conv(self, add: Op) -> Kernel | None:
        """The plain convolution that this sum can still be fused into: it then runs when the other summand is there."""
        if len(add.inputs) != 2 or not self._same_shape(add):
            return None
        for kernel in reversed(self.kernels):
            alone = len(kernel.ops) == 1 and kernel.ops[0].kind == "conv" and kernel.layout == "plain"
            if alone and kernel.output in add.inputs and self.only_reader(kernel.output) is not None:
                return kernel
        return None

    def _sum_later(self, conv: Kernel, add: Op) -> None:
        self.kernels.remove(conv)
        self._emit_conv([conv.ops[0], add], "plain")

    def _other(self, op: Op) -> None:
        blocks = self._keeps_blocks(op)
        inputs = [self._in_blocks(name) if blocks else self.plain(name) for name in op.inputs]
        self.produced.add(op.name)
        if blocks:
            self.blocked.add(op.name)
        layout = "blocked" if blocks else "plain"
        nodes: tuple[str, ...] = (onnx_name(op.kind, op.function),)
        if op.function == "hard_swish":
            nodes = ("HardSigmoid", "Mul")
        if op.kind == "linear" and not op.bias and len(self.workload.shapes[op.name]) > 2:
            nodes = ("MatMul",)  # with a bias it becomes a Gemm of all positions
        self.emit([op], inputs, layout, nodes, self._bytes(op.name))

    def _keeps_blocks(self, op: Op) -> bool:
        if not op.inputs or not self.blocked.issuperset(op.inputs):
            return False
        if op.kind in POOLS:
            return self.workload.shapes[op.inputs[0]][1] % BLOCK == 0
        if op.kind == "concat":
            return all(self.workload.shapes[name][1] % BLOCK == 0 for name in op.inputs)
        if op.kind in ("add", "mul"):
            return len(op.inputs) == 2 and self._same_shape(op)
        return op.kind == "activation" and op.function in _KEEP_BLOCKS

    def _same_shape(self, op: Op) -> bool:
        return len({self.workload.shapes[name] for name in op.inputs}) == 1

    def plain(self, name: str) -> str:
        """The name of a tensor in the plain layout."""
        name = self._source(name)
        if name not in self.blocked:
            return name
        return self._copied(name, "plain", "ReorderOutput")

    def _in_blocks(self, name: str) -> str:
        name = self._source(name)
        if name in self.blocked:
            return name
        return self._copied(name, "blocked", "ReorderInput")

    def _copied(self, name: str, layout: str, node: str) -> str:
        copy = f"{name}@{layout}"
        if copy not in self.copies:
            self.copies.add(copy)
            self.convert("reorder", (name, copy), layout, (node,), tensor_bytes(self.workload, name, layout))
        return copy

    def _source(self, name: str) -> str:
        while name in self.views and name not in self.stands:
            name = self.views[name]
        return self.stands.get(name, name)

    def _bytes(self, name: str) -> int:
        return tensor_bytes(self.workload, name, "blocked" if name in self.blocked else "plain")


def tensor_bytes(workload: Workload, name: str, layout: str) -> int:
    """Bytes of a tensor in a layout: blocks are filled up."""
    name = workload.tensor_of(name)
    size = workload.tensor_bytes(name)
    if layout != "blocked":
        return size
    channels = workload.shapes[name][1]
    return size // channels * padded(channels)


def padded(channels: int) -> int:
    """Channels that a tensor in blocks has room for."""
    return -(-channels // BLOCK) * BLOCK


def _conv_layout(op: Op) -> str:
    out_channels, per_group = op.weight_shape[:2]
    if op.depthwise and out_channels == op.groups:
        return "blocked" if out_channels % _ALIGNED == 0 else "plain"
    if op.groups > 1:
        fits = per_group % BLOCK == 0 and out_channels // op.groups % BLOCK == 0
        return "blocked" if fits else "plain"
    if per_group < BLOCK:
        return "first"
    return "blocked" if per_group % _ALIGNED == 0 else "plain"
