"""How the tensors of a workload are stored in a program: channels last, views as the tensor they view."""

from __future__ import annotations

from typing import Any

from compress.c99.layers import Tensor
from compress.c99.qdq_graph import Graph, TensorQuantization, place
from hw_profiles.errors import InputError
from hw_profiles.network.workload import VIEWS, Op, Shape, Workload
from hw_profiles.onnx_io.untrusted_file import shown


class Tensors:
    """Looks tensors up by the names of a workload, which are those of the float tensors in the file."""

    def __init__(self, graph: Graph, workload: Workload) -> None:
        self.graph = graph
        self.workload = workload
        self.consumers = workload.consumers()
        self.views = {op.name: op for op in workload.ops if op.kind in VIEWS}

    def tensor(self, name: str) -> Tensor:
        """A tensor as the program holds it; a view is what it views, with the quantization of the view."""
        root = self.root(name)
        quantization = self.quantization(self.last(root))
        if self.last(root) != self.last(name):
            other = self.quantization(name)
            if other != quantization:
                raise InputError(f"tensor {shown(name)}: must have the scale of {shown(root)}, which it reshapes")
        return Tensor(name=root, shape=self.image(root), quantization=quantization)

    def root(self, name: str) -> str:
        """What a view views in the end; any other name as it is."""
        while name in self.views:
            name = self.views[name].inputs[0]
        return name

    def last(self, name: str) -> str:
        """The last of the views through which alone a tensor is read: its quantization is the one that counts."""
        while len(self.consumers[name]) == 1 and name not in (self.workload.input, self.workload.output):
            reader = self.consumers[name][0]
            if reader.kind not in VIEWS:
                break
            name = reader.name
        return name

    def check_view(self, name: str, reader: Op | None) -> None:
        """Flattening changes the order of an image's numbers unless it has one pixel; only weights can follow that."""
        root = self.root(name)
        if name == root:
            return
        height, width, channels = self.image(root)
        if (height, width) != (1, 1):
            good = (
                reader is not None
                and reader.kind == "linear"
                and self.workload.shapes[name] == (1, height * width * channels)
            )
        else:
            good = self.image(name) == (1, 1, channels)
        if not good:
            raise InputError(
                f"tensor {shown(name)}: only a linear layer can read an image that was flattened or reshaped; "
                "pool it to one pixel first"
            )

    def stored(self, name: str) -> str:
        """The integer tensor of the file that holds the numbers of a tensor."""
        last = self.last(name)
        while last not in self.graph.stored and last in self.views:
            last = self.views[last].inputs[0]
        return self.graph.stored[last]

    def node(self, op: Op) -> Any:
        """The node that makes the output of an operation."""
        return self.graph.producers[op.name if op.name in self.graph.producers else op.name.removesuffix(".pool")]

    def place(self, op: Op) -> str:
        """That node as it may stand in a message."""
        return place(self.node(op))

    def quantization(self, name: str) -> TensorQuantization:
        """Scale and zero point of a tensor; an InputError names one that is not held as integers."""
        found = self.graph.quantizations.get(name)
        view = self.views.get(name)
        if found is None and view is not None:
            return self.quantization(view.inputs[0])
        if found is None and name.endswith(".pool") and name not in self.graph.producers:
            return self.quantization(name.removesuffix(".pool"))
        if found is None:
            maker = self.graph.producers.get(name)
            kind = f"tensor {shown(name)}" if maker is None else place(maker)
            raise InputError(
                f"{kind}: must be held as 8-bit integers, and is not; add QuantizeLinear and DequantizeLinear"
            )
        return found

    def image(self, name: str) -> tuple[int, int, int]:
        """(height, width, channels) of a tensor; an InputError names one that is no image."""
        shape: Shape = self.workload.shapes[name]
        if len(shape) == 2 and shape[0] == 1:
            return (1, 1, shape[1])
        if len(shape) == 4 and shape[0] == 1:
            return (shape[2], shape[3], shape[1])
        raise InputError(f"tensor {shown(name)}: must be (1, C, H, W) or (1, C), got {shape}")
