"""The C code of one step of a layer: its constants and the call of its kernel."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.c99.c_literals import array, initializer, number, wrapped
from compress.c99.layers import (
    AveragePool,
    Binary,
    ChannelTables,
    Concat,
    Convolution,
    Interpolate,
    Lines,
    MaxPool,
    MeanOf,
    Move,
    Normalize,
    Product,
    ProgramLayer,
    Softmax,
    SoftmaxOf,
    Step,
    Table,
    Target,
    Window,
)  # fmt: skip
from compress.c99.lookup_tables import EIGHTHS, PARTS_OF_EIGHTHS
from compress.c99.strided_copies import MOST_AXES, Box
from hw_profiles.memory.inplace import CHANNELS_AT_ONCE

_VECTOR = 32  # numbers
_MOST_ZEROS = 0.02  # of the weights
_MOST_OTHERS = 0.1  # of the weights, in bytes: zeros, tables and descriptions of steps
_DESCRIPTION = 84  # bytes of what a kernel is told at most, and of what aligns its weights
_ARRAY = re.compile(r"static const (?P<kind>\w+) (?P<name>\w+)\[\d+\] = (?P<values>\{.*\});", re.DOTALL)
_NAME = re.compile(r"\w+")
_NO_BARRIER = np.finfo(np.float32).max


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a step stands: its name in the program, what it reads and writes, and the numbers in a row of weights."""

    layer: ProgramLayer
    length: int
    name: str
    inputs: tuple[str, ...]
    sizes: tuple[tuple[int, int, int], ...]
    output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """C source: the kernel that is used, constants at file scope, and statements."""

    kernel: str
    constants: tuple[str, ...]
    statements: tuple[str, ...]


def calls(layer: ProgramLayer, index: int, length: int) -> tuple[Call, ...]:
    """The steps of a layer: the first reads the inputs, the others change the output.

    ``length`` is that of a convolution's rows of weights, see :func:`row_lengths`.

    >>> from compress.c99.network_reader import read_network
    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from hw_profiles.network.quantization import fixed_quantization
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload()
    >>> network = read_network(write_onnx(w, quantization=fixed_quantization(w)))
    >>> calls(network.layers[0], 0, 27)[0].statements
    ('kernel_conv(&layer_0_0, arena + 16384, arena + 0);',)
    """
    output = f"arena + {layer.offset}"
    found = []
    for i, step in enumerate(layer.steps):
        place = Place(
            layer=layer,
            length=length,
            name=f"layer_{index}_{i}",
            inputs=tuple(f"arena + {o}" for o in layer.offsets) if i == 0 else (output,),
            sizes=tuple(t.shape for t in layer.inputs) if i == 0 else (layer.output.shape,),
            output=output,
        )
        found.append(_CALLS[type(step)](step, place))
    return tuple(found)


def with_shared_arrays(layers: Sequence[tuple[Call, ...]]) -> list[tuple[Call, ...]]:
    """The same calls, of arrays with equal numbers the first alone, which the others name.

    >>> equal = [
    ...     Call(kernel="table", constants=(array(name, np.int8([1, 2])),), statements=(f"kernel_table({name});",))
    ...     for name in ("a", "b")
    ... ]
    >>> [(len(call.constants), call.statements) for (call,) in with_shared_arrays([(each,) for each in equal])]
    [(1, ('kernel_table(a);',)), (0, ('kernel_table(a);',))]
    """
    first: dict[tuple[str, str], str] = {}
    return [tuple(_sharing(call, first) for call in calls) for calls in layers]


def _sharing(call: Call, first: dict[tuple[str, str], str]) -> Call:
    kept, names = list[str](), dict[str, str]()
    for constant in call.constants:
        found = _ARRAY.fullmatch(constant)
        if found is None:  # what a kernel is told, which names the arrays before it
            kept.append(_renamed(constant, names))
            continue
        one = first.setdefault((found["kind"], found["values"]), found["name"])
        if one == found["name"]:
            kept.append(constant)
        else:
            names[found["name"]] = one
    statements = tuple(_renamed(statement, names) for statement in call.statements)
    return Call(kernel=call.kernel, constants=tuple(kept), statements=statements)


def _renamed(text: str, names: Mapping[str, str]) -> str:
    return _NAME.sub(lambda word: names.get(word[0], word[0]), text) if names else text


def direct(step: Convolution, shape: tuple[int, int, int]) -> bool:
    """Whether one window covers the whole image, so that it is read in place."""
    return step.groups == 1 and step.window.kernel_size == shape[:2] and not any(step.window.padding)


def patch_numbers(layer: ProgramLayer) -> int:
    """Numbers under a window that a layer copies for one pixel, before zeros are added."""
    step = layer.steps[0]
    copied = isinstance(step, Convolution) and not step.depthwise and not direct(step, layer.inputs[0].shape)
    return step.weight[0].size if isinstance(step, Convolution) and copied else 0


def row_lengths(layers: Sequence[ProgramLayer]) -> tuple[int, ...]:
    """For each layer the numbers in a row of its weights: zeros make some a multiple of what a vector holds.

    Those that need the fewest zeros come first, until the zeros are 2 % of all weights, or less where there are many
    tables beside few weights.
    """
    lengths = [patch_numbers(layer) for layer in layers]
    steps = [layer.steps[0] for layer in layers]
    weights = [step.weight if isinstance(step, Convolution) else np.zeros((0,)) for step in steps]
    zeros = [-length % _VECTOR * len(weight) for length, weight in zip(lengths, weights, strict=True)]
    total = sum(weight.size for weight in weights)
    left = min(_MOST_ZEROS * total, _MOST_OTHERS * total - _other_bytes(layers))
    for i in sorted(range(len(layers)), key=lambda i: zeros[i]):
        left -= zeros[i]
        if left < 0:
            break
        lengths[i] += -lengths[i] % _VECTOR
    return tuple(lengths)


def _other_bytes(layers: Sequence[ProgramLayer]) -> int:
    """Constants that are no weights and belong to no channel."""
    found = 0
    for step in (step for layer in layers for step in layer.steps):
        tables = step.tables if isinstance(step, Concat) else (step.values,) if isinstance(step, Table) else ()
        powers = step.powers.nbytes if isinstance(step, Softmax) else 0
        found += powers + sum(table.nbytes for table in tables if table is not None)
        found += 0 if isinstance(step, Table | Concat) else _DESCRIPTION
    return found


def depthwise_order(weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """Weights (channel, height, width, 1) as they are read: block of channels, row, column, channel of the block."""
    blocks = [weight[c : c + CHANNELS_AT_ONCE] for c in range(0, len(weight), CHANNELS_AT_ONCE)]
    return np.concatenate([block[..., 0].transpose(1, 2, 0).reshape(-1) for block in blocks])


def _convolution(step: Convolution, place: Place) -> Call:
    name = place.name
    window = step.window
    rows = step.weight.reshape(len(step.weight), -1)
    length = max(place.length, rows.shape[1])
    padded = np.pad(rows, ((0, 0), (0, length - rows.shape[1])))
    weight = depthwise_order(step.weight) if step.depthwise else padded
    constants = [
        array(f"{name}_weight", weight),
        _bias(step, place),
        array(f"{name}_multiplier", step.multiplier.astype(np.float32)),
    ]
    fields: list[Any] = [f"{name}_weight", f"{name}_bias", f"{name}_multiplier"]
    if step.depthwise:
        fields += [_window(window, place), step.zero_point, _target(step.to)]
        arguments = f"{place.inputs[0]}, {place.output}, {_ring(place.layer)}"
        return _call(place, ("depthwise", "KernelDepthwise"), fields, arguments, constants)
    sizes = [*place.sizes[0], *place.layer.output.shape]
    fields += [
        length,
        *sizes,
        *window.kernel_size,
        *window.padding[:2],
        step.groups,
        *window.stride,
        *window.dilation,
        int(direct(step, place.sizes[0])),
        step.zero_point,
        _target(step.to),
    ]
    return _call(place, ("conv", "KernelConv"), fields, f"{place.inputs[0]}, {place.output}", constants)


def _bias(step: Convolution, place: Place) -> str:
    """What is added to the sums; where the kernel adds a number to each input, it is taken back here."""
    zero, totals = step.zero_point, step.weight.sum(axis=(1, 2, 3), dtype=np.int32)
    name = f"{place.name}_bias"
    if step.depthwise or direct(step, place.sizes[0]):
        return array(name, step.bias - np.int32(zero) * totals)
    added = f"({zero} + KERNEL_ADDED({zero}))"
    items = [f"{number(b)} - {added} * ({t})" for b, t in zip(step.bias, totals.tolist(), strict=True)]
    return f"static const int32_t {name}[{len(items)}] = {{\n{wrapped(items)}\n}};"


def _average_pool(step: AveragePool, place: Place) -> Call:
    height, width = step.window.kernel_size
    fields = [
        _window(step.window, place), height * width if step.whole else 0, step.before.scale, step.scale,
        step.before.zero_point, _target(step.to),
    ]  # fmt: skip
    arguments = f"{place.inputs[0]}, {place.output}, {_ring(place.layer)}"
    return _call(place, ("average_pool", "KernelAveragePool"), fields, arguments)


def _mean_of(step: MeanOf, place: Place) -> Call:
    arrays = (step.numbers,) if step.lines is None else step.lines
    names = [f"{place.name}_{part}" for part in (("numbers",) if step.lines is None else ("up", "down", "shift"))]
    constants = [array(name, values) for name, values in zip(names, arrays, strict=True) if values is not None]
    pointers = [*names, "0", "0", "0"] if step.lines is None else ["0", *names]
    fields = [
        _window(step.window, place), *pointers, step.lowest, step.highest, step.scale, _NO_BARRIER, step.zero_point,
        _target(step.to),
    ]  # fmt: skip
    return _call(place, ("mean_of", "KernelMeanOf"), fields, f"{place.inputs[0]}, {place.output}", constants)


def _max_pool(step: MaxPool, place: Place) -> Call:
    arguments = f"{place.inputs[0]}, {place.output}, {_ring(place.layer)}"
    return _call(place, ("max_pool", "KernelWindow"), _window(step.window, place), arguments)


def _binary(step: Binary, place: Place) -> Call:
    a, b = step.before
    second = -b.scale if step.kind == "sub" else b.scale
    fields = [
        _loops(step.sizes, 1), *(_loops(steps, 0) for steps in step.steps), a.scale, second, step.scale, _NO_BARRIER,
        a.zero_point, b.zero_point, _target(step.to),
    ]  # fmt: skip
    kernel = "mul" if step.kind == "mul" else "add"
    return _call(place, (kernel, "KernelBinary"), fields, f"{', '.join(place.inputs)}, {place.output}")


def _loops(numbers: Sequence[int], empty: int) -> list[int]:
    """As many as the kernels have loops; those before the first one run once."""
    return [empty] * (MOST_AXES - len(numbers)) + list(numbers)


def _lines(step: Lines, place: Place) -> Call:
    names = [f"{place.name}_{part}" for part in ("up", "down", "shift")]
    constants = [array(name, values) for name, values in zip(names, (step.up, step.down, step.shift), strict=True)]
    channels = len(step.up)
    fields = [
        *names, channels, place.layer.output.size // channels, _NO_BARRIER, step.zero_point, _target(step.to),
    ]  # fmt: skip
    return _call(place, ("lines", "KernelLines"), fields, f"{place.inputs[0]}, {place.output}", constants)


def _move(step: Move, place: Place) -> Call:
    constants, statements = list[str](), list[str]()
    if step.fill is not None:
        statements.append(f"kernel_fill({place.output}, {place.layer.output.size}, {step.fill});")
    for i, box in enumerate(step.boxes):
        name = f"{place.name}_{i}"
        constants.append(_box(name, box))
        statements.append(f"kernel_move(&{name}, {place.inputs[0]}, {place.output}, 0);")
    return Call(kernel="move", constants=tuple(constants), statements=tuple(statements))


def _box(name: str, box: Box) -> str:
    loops = [_loops(box.sizes, 1), _loops(box.read_steps, 0), _loops(box.write_steps, 0)]
    return f"static const KernelMove {name} = {initializer([box.read_from, box.write_to, *loops])};"


def _table(step: Table, place: Place) -> Call:
    name = f"{place.name}_table"
    statement = f"kernel_table({name}, {place.inputs[0]}, {place.output}, {place.layer.output.size});"
    return Call(kernel="table", constants=(array(name, step.values),), statements=(statement,))


def _channel_tables(step: ChannelTables, place: Place) -> Call:
    name, channels = f"{place.name}_tables", len(step.values)
    sizes = f"{channels}, {place.layer.output.size // channels}"
    statement = f"kernel_tables({name}, {sizes}, {place.inputs[0]}, {place.output});"
    return Call(kernel="tables", constants=(array(name, step.values),), statements=(statement,))


def _softmax(step: Softmax, place: Place) -> Call:
    name = f"{place.name}_powers"
    height, width, channels = place.layer.output.shape
    fields = [name, channels, height * width, step.scale, _target(step.to)]
    arguments = f"{place.inputs[0]}, {place.output}"
    return _call(place, ("softmax", "KernelSoftmax"), fields, arguments, [array(name, step.powers)])


def _softmax_of(step: SoftmaxOf, place: Place) -> Call:
    parts: dict[str, NDArray[np.float32] | None] = {"coarse": EIGHTHS, "fine": PARTS_OF_EIGHTHS}
    parts |= {"numbers": step.numbers} if step.lines is None else dict(zip(("up", "shift"), step.lines, strict=True))
    constants = [array(f"{place.name}_{name}", values) for name, values in parts.items() if values is not None]
    pointers = [
        f"{place.name}_{name}" if name in parts else "0" for name in ("coarse", "fine", "numbers", "up", "shift")
    ]
    height, width, channels = place.layer.output.shape
    period = channels if step.lines is None else len(step.lines[0])
    fields = [
        *pointers, channels, height * width, period, _NO_BARRIER, step.scale, step.zero_point, _target(step.to),
    ]  # fmt: skip
    return _call(place, ("softmax_of", "KernelSoftmaxOf"), fields, f"{place.inputs[0]}, {place.output}", constants)


def _product(step: Product, place: Place) -> Call:
    (parts, rows, depth), (_, columns, _) = place.sizes
    fields = [parts, rows, columns, depth, step.multiplier, *step.zero_points, _target(step.to)]
    return _call(place, ("product", "KernelProduct"), fields, f"{', '.join(place.inputs)}, {place.output}")


def _normalize(step: Normalize, place: Place) -> Call:
    names = [f"{place.name}_factor", f"{place.name}_shift"]
    constants = [array(name, values) for name, values in zip(names, (step.factor, step.shift), strict=True)]
    rows = place.layer.output.size // step.count
    fields = [
        *names, step.count, rows, step.inner, len(step.factor), step.bits, step.least, _NO_BARRIER, _target(step.to),
    ]  # fmt: skip
    return _call(place, ("normalize", "KernelNormalize"), fields, f"{place.inputs[0]}, {place.output}", constants)


def _interpolate(step: Interpolate, place: Place) -> Call:
    names = [f"{place.name}_{part}" for part in ("rows", "row_parts", "columns", "column_parts")]
    arrays = (step.rows, step.row_parts, step.columns, step.column_parts)
    constants = [array(name, values) for name, values in zip(names, arrays, strict=True)]
    fields = [
        *names, *place.sizes[0], *place.layer.output.shape[:2], step.multiplier, step.zero_point, _target(step.to),
    ]  # fmt: skip
    return _call(place, ("resize", "KernelResize"), fields, f"{place.inputs[0]}, {place.output}", constants)


def _concat(step: Concat, place: Place) -> Call:
    constants, statements = list[str](), list[str]()
    for i, (move, table, source) in enumerate(zip(step.moves, step.tables, place.inputs, strict=True)):
        through = "0"
        if table is not None:
            through = f"{place.name}_table_{i}"
            constants.append(array(through, table))
        for j, box in enumerate(move.boxes):
            name = f"{place.name}_{i}_{j}"
            constants.append(_box(name, box))
            statements.append(f"kernel_move(&{name}, {source}, {place.output}, {through});")
    return Call(kernel="move", constants=tuple(constants), statements=tuple(statements))


def _call(
    place: Place, kernel: tuple[str, str], fields: list[Any], arguments: str, constants: Sequence[str] = ()
) -> Call:
    """A kernel and the type of what it is told, and the fields of that."""
    name, kind = kernel
    told = f"static const {kind} {place.name} = {initializer(fields)};"
    return Call(kernel=name, constants=(*constants, told), statements=(f"kernel_{name}(&{place.name}, {arguments});",))


def _window(window: Window, place: Place) -> list[Any]:
    height, width, channels = place.sizes[0]
    sizes = [height, width, channels, *place.layer.output.shape[:2]]
    steps = [*window.stride, *window.dilation]
    return [*sizes, *window.kernel_size, *window.padding[:2], place.layer.ring_rows, *steps]


def _ring(layer: ProgramLayer) -> str:
    return f"arena + {layer.ring_offset}" if layer.ring_rows else "0"


def _target(to: Target) -> list[Any]:
    return [to.low, to.high, to.zero_point]


_CALLS: Mapping[type[Step], Callable[[Any, Place], Call]] = {
    Convolution: _convolution,
    AveragePool: _average_pool,
    MeanOf: _mean_of,
    MaxPool: _max_pool,
    Binary: _binary,
    Lines: _lines,
    Move: _move,
    Table: _table,
    ChannelTables: _channel_tables,
    Softmax: _softmax,
    SoftmaxOf: _softmax_of,
    Product: _product,
    Normalize: _normalize,
    Interpolate: _interpolate,
    Concat: _concat,
}
