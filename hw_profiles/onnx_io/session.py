"""Opens a file in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import InputError, first_line, short_reason


def open_session(model: bytes | Path, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU, all optimizations on.

    Raises:
        InputError: ONNX Runtime cannot load the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        name = "the model" if isinstance(model, bytes) else str(model)
        raise InputError(f"{name}: ONNX Runtime cannot load it ({first_line(error)})") from None


def run_session(session: Any, outputs: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> list[Any]:
    """What a session makes of a feed.

    Raises:
        InputError: it cannot be run on these inputs.
    """
    import onnxruntime

    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4  # what is wrong is told once
    try:
        made: list[Any] = session.run(list(outputs), dict(feed), quiet)
    except Exception as error:  # what does not fit is found where it is computed
        reason = short_reason(error)
        raise InputError(f"ONNX Runtime cannot run the network on the given inputs ({reason})") from None
    return made


def fixed_batch(session: Any) -> int:
    """The size of batch that a file is made for, as one of its inputs says, 0 where it takes any."""
    sides = [each.shape[0] for each in session.get_inputs() if each.shape]
    return max((side for side in sides if isinstance(side, int) and side > 0), default=0)


def as_feed(session: Any, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Arrays by name as a call of a session takes them, in the types that its inputs have.

    Raises:
        InputError: other names than those of its inputs, or numbers that are no integers where it reads these.
    """
    types = {each.name: each.type.removeprefix("tensor(").removesuffix(")") for each in session.get_inputs()}
    if set(types) != set(arrays):
        raise InputError(f"inputs must be given for {', '.join(types)}, got {', '.join(arrays)}")
    return {name: _typed(name, np.asarray(arrays[name]), kind) for name, kind in types.items()}


_NAMES = {"float": np.float32, "double": np.float64}


def _typed(name: str, array: NDArray[Any], kind: str) -> NDArray[Any]:
    if kind not in _NAMES and not hasattr(np, kind):  # text, or a type that numpy lacks
        return array
    return as_type(name, array, np.dtype(_NAMES.get(kind, kind)))


def as_type(name: str, array: NDArray[Any], wanted: np.dtype[Any]) -> NDArray[Any]:
    """What is given for the input of a name, in the type that it has.

    Raises:
        InputError: that type has no such numbers.

    >>> as_type("ids", np.array([3, 300]), np.dtype(np.uint8))
    Traceback (most recent call last):
    ...
    hw_profiles.errors.InputError: input ids must be of uint8, got int64 from 3 to 300
    """
    if wanted.kind in "iub" and array.dtype.kind == "f":
        raise InputError(f"input {name} must be of {wanted}, got {array.dtype}")
    made = np.asarray(array, wanted, order="C")
    if wanted.kind in "iu" and array.dtype.kind in "iu" and not np.array_equal(made, array):
        raise InputError(f"input {name} must be of {wanted}, got {array.dtype} from {array.min()} to {array.max()}")
    return made
