"""Traces a module into a Workload without computing any numbers."""

from __future__ import annotations

import inspect
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from hw_profiles.errors import InputError, short_reason
from hw_profiles.network.simplify import MERGED, simplify
from hw_profiles.network.workload import WEIGHTED, InputShape, Op, Shape, Workload, WorkloadBuilder
from hw_profiles.torch_io.aten_ops import CONSTANT, ELEMENTWISE, KNOWN, NO_OP, Call, Operand, read_call
from hw_profiles.torch_io.exportable import ExportableCalls

INPUT = "input"
_OPSET = 20
_READS_NUMBERS = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal")
_CALLED_LIKE_ITS_MODULE = (*WEIGHTED, "activation", "affine", "global_avg_pool", "avg_pool", "max_pool", "resize")


@dataclass(frozen=True, slots=True)
class ModuleWorkload(Workload):
    """A workload that knows how many parameters its module has: a shared one counts once, however often it is used."""

    parameters: int = 0

    @property
    def params(self) -> int:
        """Elements of the module's parameters."""
        return self.parameters


def trace(module: nn.Module, input_shape: InputShape) -> Workload:
    """The workload of a module in eval mode for one image (C, H, W), or for several tensors by the names that its
    ``forward`` gives them; the module is left as it was.

    An operation is called after the module in which it happens. A module or weight that is used twice has its MACs
    counted twice, its parameters once. A module that does not run on floats is given integers, as an embedding reads.

    Raises:
        InputError: it takes other tensors, does not fit the shape, or goes ways that depend on the numbers.

    >>> trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), (3, 8, 8)).macs
    3888
    >>> trace(nn.Bilinear(3, 4, 5), {"input1": (3,), "input2": (4,)}).inputs
    ('input1', 'input2')
    """
    name = type(module).__name__
    shapes = _checked_shapes(module, input_shape)
    if any(isinstance(m, torch.jit.ScriptModule) for m in module.modules()):
        raise InputError(f"{name}: a scripted module cannot be traced; give the module it was made of, or an ONNX file")
    first: Exception | None = None
    for dtype in (None, torch.int64):
        recorder = _Recorder(shapes)
        try:
            output = _run(module, recorder, dtype, by_name=isinstance(input_shape, Mapping))
        except _ReadsNumbersError:
            raise InputError(f"{name}: control flow that depends on the values of the input is not supported") from None
        except Exception as error:
            first = first or error
        else:
            return recorder.workload(name, output, sum(p.numel() for p in module.parameters()))
    assert first is not None
    raise InputError(f"{name}: cannot be run with an input of {input_shape} ({short_reason(first)})") from None


def _checked_shapes(module: nn.Module, input_shape: InputShape) -> dict[str, Shape]:
    """Of each input with a batch of 1; the only one has a name of ours."""
    named = isinstance(input_shape, Mapping)
    sides = dict(input_shape) if isinstance(input_shape, Mapping) else {INPUT: input_shape or ()}
    if not sides or any((not named and not each) or min(each, default=1) < 1 for each in sides.values()):
        raise InputError(f"input_shape must have dimensions of at least 1, such as (3, 224, 224), got {input_shape}")
    signature, name = inspect.signature(module.forward), type(module).__name__
    try:
        if named:
            signature.bind(**sides)
        else:
            signature.bind(None)
    except TypeError as error:
        wanted = ", ".join(signature.parameters)
        raise InputError(
            f"{name}: for models with several inputs, pass input_shape as {{name: shape}} for {wanted} ({error})"
        ) from None
    return {key: (1, *each) for key, each in sides.items()}


def example_of(module: nn.Module, input_shape: InputShape) -> dict[str, Tensor]:
    """Zeros for each input of a module, in the order in which its ``forward`` takes them.

    >>> {name: x.shape for name, x in example_of(nn.Bilinear(3, 4, 5), {"input2": (4,), "input1": (3,)}).items()}
    {'input1': torch.Size([1, 3]), 'input2': torch.Size([1, 4])}
    """
    zeros = {name: torch.zeros(shape) for name, shape in _checked_shapes(module, input_shape).items()}
    by_name = isinstance(input_shape, Mapping)
    return dict(inspect.signature(module.forward).bind(**zeros).arguments) if by_name else zeros


def run_once(module: nn.Module, input_shape: InputShape) -> Any:
    """What a module makes of zeros (1, C, H, W), or of several such tensors by name.

    >>> run_once(nn.Conv2d(3, 4, 3), (3, 8, 8)).shape
    torch.Size([1, 4, 6, 6])
    """
    return module(*example_of(module, input_shape).values())


def export(module: nn.Module, input_shape: InputShape) -> bytes:
    """The float32 ONNX file that torch exports for a module in eval mode, with its weights, to be run and timed.
    Several inputs have the names that its ``forward`` gives them.

    Raises:
        InputError: torch cannot export it.

    >>> len(export(nn.Conv2d(3, 4, 3), (3, 8, 8))) > 432
    True
    """
    zeros = example_of(module, input_shape)
    names = list(zeros) if isinstance(input_shape, Mapping) else None
    try:
        with (
            warnings.catch_warnings(),
            tempfile.TemporaryDirectory() as folder,
            in_eval_mode(module),
            ExportableCalls(),
        ):
            warnings.simplefilter("ignore")
            path = Path(folder) / "model.onnx"
            torch.onnx.export(
                module, tuple(zeros.values()), path, dynamo=False, opset_version=_OPSET, input_names=names
            )
            return path.read_bytes()
    except Exception as error:
        raise InputError(f"{type(module).__name__}: torch cannot export it to ONNX ({short_reason(error)})") from None


class _ReadsNumbersError(Exception):
    pass


def _run(module: nn.Module, recorder: _Recorder, dtype: torch.dtype | None, *, by_name: bool) -> Any:
    floats = (t.dtype for t in module.state_dict().values() if t.is_floating_point())
    with (
        torch.inference_mode(),
        in_eval_mode(module),
        _without_numbers(module) as parameters,
        recorder.names_of(module),
    ):
        recorder.parameters = parameters
        images = recorder.images(dtype or next(floats, torch.float32))
        with recorder:
            return module(**images) if by_name else module(*images.values())


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """In evaluation mode while it lasts; then each module in it is in the mode that it had."""
    modes = {inner: inner.training for inner in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for inner, training in modes.items():
            inner.training = training


@contextmanager
def _without_numbers(module: nn.Module) -> Iterator[set[int]]:
    """Parameters and buffers stand aside for tensors without numbers, whose ids are given; torch.func.functional_call
    loses those of a module that is used twice."""
    tables: list[dict[str, Any]] = [t for m in module.modules() for t in (m._parameters, m._buffers)]
    originals = [dict(table) for table in tables]
    meta: dict[int, Tensor] = {}
    try:
        for table in tables:
            for key, tensor in table.items():
                if tensor is not None:
                    table[key] = meta.setdefault(id(tensor), torch.empty_like(tensor, device="meta"))
        yield {id(tensor) for tensor in meta.values()}
    finally:
        for table, original in zip(tables, originals, strict=True):
            table.update(original)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down the calls that a module makes.

    In inference mode composite functions such as linear arrive whole.
    """

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: dict[str, Op] = {}
        self.inputs = tuple(shapes)
        self.shapes: dict[str, Shape] = dict(shapes)
        self.named: dict[int, str] = {}
        self.parameters: set[int] = set()
        self.biases: dict[str, int] = {}  # the weight of an operation -> its bias
        self.owners: dict[object, str] = {}  # parameter -> the weight of the operation that reads it first
        self.alive: list[Tensor] = []  # an id is a tensor's own only while the tensor lives
        self.path: list[tuple[str, bool]] = []

    def images(self, dtype: torch.dtype) -> dict[str, Tensor]:
        found = {name: torch.empty(self.shapes[name], device="meta", dtype=dtype) for name in self.inputs}
        for name, image in found.items():
            self._name(image, name)
        return found

    @contextmanager
    def names_of(self, module: nn.Module) -> Iterator[None]:
        """While it holds, each call knows the module that makes it."""
        hooks = []
        for name, inner in module.named_modules():
            place = (name, not any(True for _ in inner.children()))
            hooks.append(inner.register_forward_pre_hook(lambda *_, place=place: self.path.append(place)))
            hooks.append(inner.register_forward_hook(lambda *_: self.path.pop() and None))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(_as_meta, (args, kwargs or {}))
        kind = func._schema.name.rpartition("::")[2]
        in_place = kind.endswith("_") and not kind.endswith("__")
        kind = kind.rstrip("_") if in_place else kind
        depends = any(isinstance(t, Tensor) and id(t) in self.named for t in tree_leaves((args, kwargs)))
        if depends and kind in _READS_NUMBERS:
            raise _ReadsNumbersError
        if kind not in KNOWN and func._can_decompose():
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        call_arguments = self._arguments(func, args, kwargs) if depends else {}
        # Without numbers torch works these out step by step, which took most of the time of a trace.
        if kind in ELEMENTWISE and args[0].is_floating_point():
            result = args[0] if in_place else torch.empty_like(args[0])
        else:
            result = func(*args, **kwargs)
        if depends and kind not in CONSTANT:
            self._record(kind, call_arguments, result)
        return result

    def workload(self, name: str, output: Any, parameters: int) -> Workload:
        tensors = [t for t in tree_leaves(output) if isinstance(t, Tensor)]
        outputs = [self.named[id(t)] for t in tensors if id(t) in self.named]
        if not outputs:
            raise InputError(f"{name}: must return a tensor that depends on its input, and does not")
        ops, gone = simplify(list(self.ops.values()), self.shapes, outputs)
        builder = WorkloadBuilder(self.inputs[0], self.shapes[self.inputs[0]])
        for other in self.inputs[1:]:
            builder.further_input(other, self.shapes[other])
        first, *others = dict.fromkeys(gone.get(o, o) for o in outputs)
        for op in _needed(ops, {first, *others}):
            builder.append(op, self.shapes[op.name])
        built = builder.build(first)
        return ModuleWorkload(
            built.input, built.output, built.ops, built.shapes, further_inputs=built.further_inputs,
            further_outputs=tuple(others), parameters=parameters,
        )  # fmt: skip

    def _arguments(self, func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
        parameters = func._schema.arguments
        given = {parameter.name: value for parameter, value in zip(parameters, args, strict=False)} | kwargs
        return {key: tree_map(self._operand, value) for key, value in given.items()}

    def _operand(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        parameter = id(value) if id(value) in self.parameters else 0
        return Operand(self.named.get(id(value), ""), tuple(value.shape), parameter)

    def _record(self, kind: str, arguments: dict[str, Any], result: Any) -> None:
        several = isinstance(result, list | tuple)
        for tensor in result if several else (result,):
            if not isinstance(tensor, Tensor):
                continue
            call = Call(kind, arguments, tuple(tensor.shape))
            op = read_call(call)
            if op.kind == NO_OP:
                self._name(tensor, op.inputs[0])
            else:
                self._add(tensor, call, op)

    def _add(self, tensor: Tensor, call: Call, op: Op) -> None:
        shape = tuple(tensor.shape)
        op = self._with_weights(replace(op, name=self._free_name(op, call.kind)), call)
        if op.kind == "global_avg_pool" and len(shape) == 2:
            pooled = replace(op, name=f"{op.name}.pool")
            self._keep(pooled, (*shape, 1, 1))
            op = Op(op.name, "flatten", (pooled.name,))
        self._keep(op, shape)
        self._name(tensor, op.name)

    def _with_weights(self, op: Op, call: Call) -> Op:
        """The operation, with the names of weights that an earlier one reads too; where nobody knows the operation, its
        weights are all numbers of parameters that no other one reads."""
        operands = {each.parameter: each for each in call.operands if each.parameter}
        if op.kind == "other":
            count = sum(math.prod(each.shape) for key, each in operands.items() if key not in self.owners)
            self.owners |= {key: op.weight for key in operands if key not in self.owners}
            return replace(op, weight_shape=(count,)) if count else op
        if op.kind in MERGED and operands:
            owner = self.owners.setdefault(tuple(operands), op.bias_name)
            return op if owner == op.bias_name else replace(op, shared_bias=owner)
        weight = next((key for key, each in operands.items() if each.shape == op.weight_shape), 0)
        if not weight or sum(side > 1 for side in op.weight_shape) < 2:
            return op
        bias = call.arguments.get("bias")
        own = bias.parameter if isinstance(bias, Operand) else 0
        owner = self.owners.setdefault(weight, op.weight)
        self.biases.setdefault(owner, own)
        if owner == op.weight:
            return op
        same = op.bias and self.biases[owner] == own
        return replace(op, shared_weight=owner, shared_bias=f"{owner.removesuffix('.weight')}.bias" if same else "")

    def _keep(self, op: Op, shape: Shape) -> None:
        self.ops[op.name] = op
        self.shapes[op.name] = shape

    def _name(self, tensor: Tensor, name: str) -> None:
        self.named[id(tensor)] = name
        self.alive.append(tensor)

    def _free_name(self, op: Op, kind: str) -> str:
        place, leaf = self.path[-1] if self.path else ("", False)
        alone = leaf and place and op.kind in _CALLED_LIKE_ITS_MODULE
        name = place if alone else f"{place}.{kind.lstrip('_')}".lstrip(".")
        count, free = 1, name
        while free in self.shapes:
            count += 1
            free = f"{name}.{count}"
        return free


def _as_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) and not value.is_meta else value


def _needed(ops: Sequence[Op], outputs: set[str]) -> list[Op]:
    """The operations that an output depends on, in order."""
    kept = []
    for op in reversed(ops):
        if op.name in outputs:
            kept.append(op)
            outputs |= set(op.inputs)
    return kept[::-1]
