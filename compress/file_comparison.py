"""Two ONNX files on the same images: accuracies, agreement, and the first layer that diverges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.data.dataset import Dataset
from compress.data.preprocessing import METADATA_KEY, Preprocessing
from compress.networks.onnx_export import onnx_logits
from compress.training.evaluation import accuracy, signal_to_noise_db
from hw_profiles.errors import InputError
from hw_profiles.network.workload import Workload
from hw_profiles.onnx_io.graph_edges import consumers_of, needed_nodes
from hw_profiles.onnx_io.reader import read_metadata, read_onnx
from hw_profiles.onnx_io.untrusted_file import load_model, shown

THRESHOLD = 0.1
_LAYER_IMAGES, _LAYER_BATCH = 64, 4

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerError:
    """``error``: the length of the difference of a tensor in both files by its length in the first."""

    name: str
    kind: str
    error: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """``accuracies`` of both files, None without labels, and ``agreement``, the share of equal predictions, in 0..1.
    ``snr_db`` is the power of the first file's logits by that of their difference, in decibels. ``largest_difference``
    is that of two logits, ``largest_logit`` of the first file stands beside it.

    ``layers`` are the tensors of equal name and shape in the order in which the first file makes them, and
    ``diverges_at`` the first whose error is above ``threshold``, None where none is. They are taken without the
    runtime's optimisations, which would leave most of them out.
    """

    images: int
    accuracies: tuple[float, float] | None
    agreement: float
    snr_db: float
    largest_difference: float
    largest_logit: float
    file_bytes: tuple[int, int]
    threshold: float
    layers: tuple[LayerError, ...]

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
    one reads images as the other's record says, or else as the data's does.

    Raises:
        InputError: not a classifier of images, or one for other channels or classes than the data have.

    >>> from compress.data.dataset import load_data
    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> file = write_onnx(preset("resnet8", input_shape=(1, 16, 16)).workload())
    >>> compare_files(file, file, load_data("digits")).agreement
    1.0
    """
    if not threshold > 0:
        raise InputError(f"threshold must be above 0, got {threshold}")
    first, second = (_Side.of(*files, data) for files in ((one, other), (other, one)))
    logits = [onnx_logits(side.file, side.images, side.preprocessing) for side in (first, second)]
    predictions = [np.asarray(each.argmax(1), np.int64) for each in logits]
    right = (
        (accuracy(predictions[0], data.test), accuracy(predictions[1], data.test)) if data.test.is_labelled else None
    )
    return Comparison(
        images=len(data.test),
        accuracies=right,
        agreement=float(np.mean(predictions[0] == predictions[1])),
        snr_db=signal_to_noise_db(logits[0], logits[1]),
        largest_difference=float(np.abs(logits[0] - logits[1]).max()),
        largest_logit=float(np.abs(logits[0]).max()),
        file_bytes=(len(one), len(other)),
        threshold=threshold,
        layers=tuple(layer_errors((one, other), (first.inputs(_LAYER_IMAGES), second.inputs(_LAYER_IMAGES)))),
    )


def layer_errors(files: tuple[bytes, bytes], inputs: tuple[Array, Array]) -> Iterator[LayerError]:
    """The error of each tensor that both files make under the same name and in the same shape, for equal images as each
    file reads them (N, C, H, W).

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> file = write_onnx(preset("resnet8").workload())
    >>> [layer.name for layer in layer_errors((file, file), (np.ones((2, 3, 32, 32), np.float32),) * 2)][:2]
    ['stem', 'stem.act']
    """
    models = [load_model(file) for file in files]
    kinds = [{name: node.op_type for node in needed_nodes(m.graph) for name in node.output if name} for m in models]
    read_as = [_dequantized(model.graph) for model in models]
    again = {*read_as[0].values()} & {*read_as[1].values()}  # are compared under their first name
    names = [name for name in kinds[0] if name in kinds[1] and name not in again]
    sessions = [_open_wide(m, [as_.get(n, n) for n in names]) for m, as_ in zip(models, read_as, strict=True)]
    total = dict.fromkeys(names, 0.0)
    apart = dict.fromkeys(names, 0.0)
    for i in range(0, len(inputs[0]), _batch(sessions)):
        batch = slice(i, i + _batch(sessions))
        produced = [
            _run(session, names, as_, x[batch]) for session, as_, x in zip(sessions, read_as, inputs, strict=True)
        ]
        for name in names:
            a, b = produced[0][name], produced[1][name]
            if a.shape != b.shape or not np.issubdtype(a.dtype, np.floating) or not np.issubdtype(b.dtype, np.floating):
                total.pop(name, None)
                continue
            apart[name] += float(np.square(a.astype(np.float64) - b).sum())
            total[name] += float(np.square(a.astype(np.float64)).sum())
        names = [name for name in names if name in total]
    for name in names:
        yield LayerError(name=name, kind=kinds[0][name], error=(apart[name] / max(total[name], 1e-30)) ** 0.5)


@dataclass(frozen=True, slots=True)
class _Side:
    """A file, the test images at its size, and how they become its input."""

    file: bytes
    images: NDArray[np.uint8]
    preprocessing: Preprocessing

    @classmethod
    def of(cls, file: bytes, other: bytes, data: Dataset) -> _Side:
        record = _record(file) or _record(other) or data.preprocessing
        workload = _workload(file, record)
        shape, output = workload.shapes[workload.input], workload.shapes[workload.output]
        if len(shape) != 4 or shape[1] != data.preprocessing.channels or record.channels != shape[1]:
            raise InputError(f"a file must read images (N, {data.preprocessing.channels}, H, W), one reads {shape}")
        if len(output) != 2 or (data.test.is_labelled and output[1] != data.num_classes):
            classes = f"the {data.num_classes} classes of {data.name}" if data.num_classes else "classes"
            raise InputError(f"a file must output {classes}, one outputs {output[1:]}")
        images = data.resized(shape[2], shape[3]).test.images
        return cls(file, images, record)

    def inputs(self, count: int) -> Array:
        return self.preprocessing.tensor(self.images[:count])


def _record(file: bytes) -> Preprocessing | None:
    text = read_metadata(file).get(METADATA_KEY)
    return None if text is None else Preprocessing.from_json(text)


def _workload(file: bytes, record: Preprocessing) -> Workload:
    """Of a file at its own size, at the record's where it leaves that open."""
    try:
        return read_onnx(file)
    except ValueError:
        return read_onnx(file, record.input_shape)


def _open_wide(model: Any, names: list[str]) -> Any:
    """A session that gives these tensors, computed as the file says and not as the runtime would rather have it."""
    import onnxruntime

    given = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"ONNX Runtime cannot run a file layer by layer ({shown(reason)})") from None


def _batch(sessions: list[Any]) -> int:
    batches = [session.get_inputs()[0].shape[0] for session in sessions]
    return min([_LAYER_BATCH, *(batch for batch in batches if isinstance(batch, int))])


def _run(session: Any, names: list[str], read_as: Mapping[str, str], x: Array) -> Mapping[str, NDArray[Any]]:
    wanted = [read_as.get(name, name) for name in names]
    return dict(zip(names, session.run(wanted, {session.get_inputs()[0].name: x}), strict=True))


def _dequantized(graph: Any) -> dict[str, str]:
    """The name under which all readers get a tensor that is only read as integers: a quantizer lets a ReLU go, gives
    its name to what it read, and leaves the cutting off to the saturation of the integers."""
    consumers = consumers_of(graph)

    def only(name: str, kind: str) -> Any | None:
        found = consumers.get(name, [])
        return found[0] if len(found) == 1 and found[0] is not None and found[0].op_type == kind else None

    alike = {}
    for name in consumers:
        rounding = only(name, "QuantizeLinear")
        back = rounding and only(rounding.output[0], "DequantizeLinear")
        if back is not None:
            alike[name] = back.output[0]
    return alike
