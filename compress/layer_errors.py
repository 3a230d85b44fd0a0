"""The error of each tensor that two ONNX files both make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hw_profiles.errors import InputError, first_line
from hw_profiles.onnx_io.graph_edges import consumers_of, needed_nodes
from hw_profiles.onnx_io.session import run_session
from hw_profiles.onnx_io.untrusted_file import load_model, shown

Feed = Mapping[str, NDArray[Any]]
"""What one call of a file reads, by the names of its inputs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerError:
    """``error``: the length of the difference of a tensor in both files by its length in the first."""

    name: str
    kind: str
    error: float


def layer_errors(files: tuple[bytes, bytes], feeds: Iterable[tuple[Feed, Feed]]) -> Iterator[LayerError]:
    """The error of each tensor that both files make under the same name and in the same shape; each of ``feeds`` is
    what the one and the other file read of the same examples.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> file = write_onnx(preset("resnet8").workload())
    >>> feed = {"input": np.ones((2, 3, 32, 32), np.float32)}
    >>> [layer.name for layer in layer_errors((file, file), [(feed, feed)])][:2]
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
    for both in feeds:
        produced = [_run(session, names, as_, feed) for session, as_, feed in zip(sessions, read_as, both, strict=True)]
        for name in names:
            a, b = produced[0][name], produced[1][name]
            if a.shape != b.shape or not np.issubdtype(a.dtype, np.floating) or not np.issubdtype(b.dtype, np.floating):
                total.pop(name, None)
                continue
            apart[name] += float(np.square(difference(a, b)).sum())
            total[name] += float(np.square(finite(a)).sum())
        names = [name for name in names if name in total]
    for name in names:
        yield LayerError(name=name, kind=kinds[0][name], error=(apart[name] / max(total[name], 1e-30)) ** 0.5)


def difference(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Number by number; 0 where both are the same, which infinity and NaN can be too.

    >>> difference(np.array([1.0, np.inf, np.nan]), np.array([3.0, np.inf, np.nan])).tolist()
    [-2.0, 0.0, 0.0]
    """
    a, b = one.astype(np.float64), other.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, a - b)


def finite(values: NDArray[Any]) -> NDArray[np.float64]:
    """The numbers, 0 in the place of those that are infinite or NaN."""
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


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
        reason = first_line(error)
        raise InputError(f"ONNX Runtime cannot run a file layer by layer ({shown(reason)})") from None


def _run(session: Any, names: list[str], read_as: Mapping[str, str], feed: Feed) -> Mapping[str, NDArray[Any]]:
    wanted = [read_as.get(name, name) for name in names]
    return dict(zip(names, run_session(session, wanted, feed), strict=True))


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
