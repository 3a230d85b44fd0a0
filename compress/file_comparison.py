"""Two ONNX files on the same inputs: accuracies, agreement, differences, and the first layer that diverges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.class_order import in_order_of
from compress.data.dataset import Dataset, Split
from compress.data.network_inputs import NamedInputs, NetworkInputs, picture_record, sides_of
from compress.data.preprocessing import METADATA_KEY, Preprocessing
from compress.layer_errors import Feed, LayerError, difference, finite, layer_errors
from compress.networks.calibration_data import with_fitting_labels
from compress.quantization.int8.fidelity import tells_classes
from compress.training.evaluation import accuracy
from hw_profiles.errors import InputError
from hw_profiles.network.workload import InputShape, Workload
from hw_profiles.onnx_io.reader import read_metadata, read_onnx
from hw_profiles.onnx_io.session import as_feed, fixed_batch, open_session, run_session

THRESHOLD = 0.1
_LAYER_EXAMPLES, _LAYER_BATCH, _BATCH = 64, 4, 64
_MOST_NUMBERS = 64 * 1024**2


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputDifference:
    """One output of both files. ``snr_db`` is the power of the first file's numbers by that of their difference, in
    decibels; ``largest_difference`` is that of two numbers, ``largest`` the largest magnitude of the first file."""

    snr_db: float
    largest_difference: float
    largest: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """``accuracies`` of both files, None without labels, and ``agreement``, the share of equal predictions, in 0..1,
    None where the first output is not one number for each of several classes.

    ``outputs`` has each output that both files make, by the first file's name. ``snr_db`` is the least of their
    signal-to-noise ratios; ``largest_difference`` and ``largest_logit`` are those of the first output.

    ``layers`` are the tensors of equal name and shape in the order in which the first file makes them, and
    ``diverges_at`` the first whose error is above ``threshold``, None where none is. They are taken without the
    runtime's optimizations, which would leave most of them out.
    """

    images: int
    accuracies: tuple[float, float] | None
    agreement: float | None
    outputs: Mapping[str, OutputDifference]
    snr_db: float
    largest_difference: float
    largest_logit: float
    file_bytes: tuple[int, int]
    threshold: float
    layers: tuple[LayerError, ...]

    @property
    def rows(self) -> tuple[LayerError, ...]:
        """The layers (see :func:`nas.records`)."""
        return self.layers

    @property
    def diverges_at(self) -> LayerError | None:
        """The first layer whose error is above the threshold."""
        return next((layer for layer in self.layers if not layer.error <= self.threshold), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        found = self.diverges_at
        return {**asdict(self), "diverges_at": None if found is None else asdict(found)}


def compare_files(one: bytes, other: bytes, data: Dataset, *, threshold: float = THRESHOLD) -> Comparison:
    """Run two files in ONNX Runtime on the test images, each as its own record of preprocessing says; a file without
    one reads images as the other's record says, or else as the data's does. Data that are no images are fed as they
    are, to one input or by name to several.

    Raises:
        InputError: files for other inputs than the data, or that make outputs of other shapes.

    >>> from compress.data.dataset import load_data
    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> file = write_onnx(preset("resnet8", input_shape=(1, 16, 16)).workload())
    >>> compare_files(file, file, load_data("digits")).agreement
    1.0
    """
    if not threshold > 0:
        raise InputError(f"threshold must be above 0, got {threshold}")
    sides = [_Side.of(*files, data) for files in ((one, other), (other, one))]
    record = _record(one)
    data = in_order_of(() if record is None else record.class_names, data, "the first file")
    data = with_fitting_labels(data, sides[0].classes, "the first file")
    batch = _one_batch(sides)
    count = _in_whole_batches(len(data.test), batch)
    if not count:
        raise InputError(f"the files read {batch} examples at once: as many must be given, got {len(data.test)}")
    measured = _Measured(*sides)
    for feeds in _paired(sides, batch or _BATCH, count):
        measured.add(feeds)
    outputs, predictions = measured.outputs(), measured.predictions()
    right = None
    if predictions is not None and data.test.is_labeled:
        test = Split(data.test.images[:count], data.test.labels[:count])
        right = (accuracy(predictions[0], test), accuracy(predictions[1], test))
    first = next(iter(outputs.values()))
    examples = max(_in_whole_batches(min(_LAYER_EXAMPLES, count), batch), batch)
    return Comparison(
        images=count,
        accuracies=right,
        agreement=None if predictions is None else float(np.mean(predictions[0] == predictions[1])),
        outputs=outputs,
        snr_db=min(each.snr_db for each in outputs.values()),
        largest_difference=first.largest_difference,
        largest_logit=first.largest,
        file_bytes=(len(one), len(other)),
        threshold=threshold,
        layers=tuple(layer_errors((one, other), _paired(sides, batch or _layer_batch(sides), examples))),
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """A file, its session, what it reads of the data, the numbers of classes that it tells apart, if it does, and the
    numbers in all tensors of one example."""

    session: Any
    inputs: Any
    record: Preprocessing
    classes: int | None
    batch: int
    numbers: int

    @classmethod
    def of(cls, file: bytes, other: bytes, data: Dataset) -> _Side:
        session = open_session(file)
        if isinstance(data.preprocessing, NetworkInputs):
            record: Preprocessing = data.preprocessing
            workload = _workload(file, sides_of(data.test.images))
            inputs = data.test.images
        else:
            record = _record(file) or _record(other) or data.preprocessing
            workload = _workload(file, record.input_shape)
            record = _as_read(workload, record, data, in_bytes=session.get_inputs()[0].type == "tensor(uint8)")
            inputs = data.resized(*record.sizes[-1]).test.images
        output = workload.shapes[workload.output]
        classes = output[1] if len(output) == 2 and output[1] > 1 else None
        whole = isinstance(inputs, NamedInputs) and inputs.whole_calls
        numbers = sum(map(math.prod, workload.shapes.values()))
        side = cls(session, inputs, record, classes, 1 if whole else fixed_batch(session), numbers)
        return side if side.batch or side.takes_two() else replace(side, batch=1)

    def takes_two(self) -> bool:
        """Whether a file runs on two examples, as one does not that leaves the batch open but reshapes to sides of
        one."""
        try:
            run_session(self.session, [self.session.get_outputs()[0].name], next(self.feeds(2, 2)))
        except InputError:
            return False
        return True

    def feeds(self, size: int, count: int) -> Iterator[Feed]:
        """What the calls read of the first ``count`` examples, so many at a time."""
        given = self.inputs[:count]
        if isinstance(given, NamedInputs):
            yield from (as_feed(self.session, feed) for feed in given.feeds(size))
            return
        name = self.session.get_inputs()[0].name
        for start in range(0, len(given), size):
            yield as_feed(self.session, {name: self.record.tensor(given[start : start + size])})


class _Measured:
    """Sums over calls."""

    def __init__(self, one: _Side, other: _Side) -> None:
        self.sides = (one, other)
        names = [[output.name for output in side.session.get_outputs()] for side in self.sides]
        self.pairs = _pairs(*names)
        self.signal = dict.fromkeys(self.pairs, 0.0)
        self.noise = dict.fromkeys(self.pairs, 0.0)
        self.largest: dict[str, tuple[float, float]] = {}
        self.classes: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def add(self, feeds: tuple[Feed, Feed]) -> None:
        """One call of each file."""
        wanted = (list(self.pairs), list(self.pairs.values()))
        made = [
            run_session(side.session, names, feed) for side, names, feed in zip(self.sides, wanted, feeds, strict=True)
        ]
        for i, (name, a, b) in enumerate(zip(self.pairs, *made, strict=True)):
            if np.shape(a) != np.shape(b):
                raise InputError(
                    f"both files must make outputs of one shape, {name} is {np.shape(a)} in the first and "
                    f"{np.shape(b)} in the second"
                )
            if np.asarray(a).dtype.kind not in "fiub":  # text says nothing of differences
                continue
            self._add_output(name, np.asarray(a), np.asarray(b))
            if i == 0 and tells_classes(np.asarray(a)):
                self.classes.append((a.argmax(1), b.argmax(1)))

    def _add_output(self, name: str, a: NDArray[Any], b: NDArray[Any]) -> None:
        exact, apart = finite(a), difference(a, b)
        self.signal[name] += float(np.square(exact).sum())
        self.noise[name] += float(np.square(apart).sum())
        before = self.largest.get(name, (0.0, 0.0))
        ends = (float(np.abs(each).max(initial=0)) for each in (apart, exact))
        self.largest[name] = tuple(np.maximum(before, list(ends)).tolist())  # keeps a NaN

    def outputs(self) -> dict[str, OutputDifference]:
        """What was found of each, of numbers."""
        if not self.largest:
            raise InputError(f"both files must make an output of numbers, got {', '.join(self.pairs)} of other types")
        return {
            name: OutputDifference(
                snr_db=_decibels(self.signal[name], self.noise[name]), largest_difference=apart, largest=largest
            )
            for name, (apart, largest) in self.largest.items()
        }

    def predictions(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """The class of each example in both files, None where they tell no classes."""
        if not self.classes:
            return None
        one, other = (np.concatenate(each) for each in zip(*self.classes, strict=True))
        return one, other


def _pairs(one: Sequence[str], other: Sequence[str]) -> dict[str, str]:
    """The outputs of both files that belong together: by name, or in their order where there are equally many."""
    shared = {name: name for name in one if name in other}
    if len(shared) < len(one) and len(one) == len(other):
        return dict(zip(one, other, strict=True))
    if not shared:
        raise InputError(
            f"both files must make an output of one name, got {', '.join(one[:8])} and {', '.join(other[:8])}"
        )
    return shared


def _one_batch(sides: Sequence[_Side]) -> int:
    """The size of batch that both files read, 0 where they take any."""
    batches = {side.batch for side in sides if side.batch}
    if len(batches) > 1:
        raise InputError(f"both files must read batches of one size, got {' and '.join(map(str, sorted(batches)))}")
    return batches.pop() if batches else 0


def _in_whole_batches(count: int, batch: int) -> int:
    """How many examples can be fed: a rest that is no batch cannot."""
    return count - count % batch if batch else count


def _paired(sides: Sequence[_Side], size: int, count: int) -> Iterator[tuple[Feed, Feed]]:
    """What both files read of the first ``count`` examples, so many at a time."""
    yield from zip(*(side.feeds(size, count) for side in sides), strict=True)


def _layer_batch(sides: Sequence[_Side]) -> int:
    """As many examples as leave room for all tensors of both files at once."""
    return min(max(_MOST_NUMBERS // max(sum(side.numbers for side in sides), 1), 1), _LAYER_BATCH)


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _as_read(workload: Workload, record: Preprocessing, data: Dataset, *, in_bytes: bool) -> Preprocessing:
    """The record of images as the file reads them."""
    shape, channels = workload.shapes[workload.input], data.preprocessing.channels
    if workload.further_inputs:
        raise InputError(f"the inputs {', '.join(workload.inputs)} must be given by name, got images")
    found = picture_record(record, shape[1:], in_bytes=in_bytes)
    if found is None or record.channels != channels:
        raise InputError(f"a file must read images (N, {channels}, H, W) or (N, H, W, {channels}), one reads {shape}")
    return found


def _record(file: bytes) -> Preprocessing | None:
    text = read_metadata(file).get(METADATA_KEY)
    return None if text is None else Preprocessing.from_json(text)


def _workload(file: bytes, sides: InputShape) -> Workload:
    """Of a file at its own size, at ``sides`` where it leaves that open."""
    try:
        return read_onnx(file)
    except ValueError:
        return read_onnx(file, sides)
