"""Opens a file in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError


def open_session(model: bytes | Path, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU, all optimisations on.

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
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name}: ONNX Runtime cannot load it ({first_line})") from None
