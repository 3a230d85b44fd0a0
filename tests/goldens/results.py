"""What is recorded of a network: what is the same on every machine, so no integer weights, which differ in the last bit,
and scales to five digits.

    python -m tests.goldens.results [CASE ...]

writes what is found now into ``results.json``, of all cases or of those that are named.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from compress import Artifact, Context, Dataset, MixedPrecision, Prune, Quantize, QuantizeAware, Recipe
from compress.data.dataset import Split
from compress.networks.onnx_export import onnx_bytes
from hw_profiles import load_device
from hw_profiles.errors import InputError
from tests.goldens.networks import ARCHS, FILES, TIMM, of_arch, of_file, of_timm, record

RESULTS = Path(__file__).parent / "results.json"
PLAIN = Quantize(calibration="minmax", equalize="none", bias_correction=False, adaround=False, images=16)


def data(size: int = 32) -> Dataset:
    """Images without a meaning, of as many classes as the networks have."""
    generator = np.random.default_rng(0)
    blurred = generator.integers(0, 256, (96, size // 4, size // 4, 3)).repeat(4, 1).repeat(4, 2)
    pixels = np.clip(blurred + generator.integers(-30, 30, blurred.shape), 0, 255).astype(np.uint8)
    parts = [Split(pixels[i : i + 32], np.arange(32, dtype=np.int64) % 10) for i in (0, 32, 64)]
    return Dataset(name="noise", train=parts[0], val=parts[1], test=parts[2], preprocessing=record(size))


def context() -> Context:
    return Context(data=data(), device=load_device("host"), measured=False, max_accuracy_drop=100.0)


def counted(artifact: Artifact) -> dict[str, Any]:
    workload = artifact.workload()
    return {"macs": workload.macs, "weights": workload.weight_count, "operations": len(workload.ops)}


def int8(artifact: Artifact) -> dict[str, Any]:
    return described(onnx_bytes(PLAIN(artifact, context())))


def described(file: bytes) -> dict[str, Any]:
    """Nodes by their kinds, the shapes of the integer weights, and the means of the binary logarithms of the scales."""
    graph = onnx.load_model_from_string(file).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    shapes = sorted(tuple(each.dims) for each in constants.values() if each.data_type == onnx.TensorProto.INT8
                    and len(each.dims) > 1)  # fmt: skip
    scales: dict[str, list[float]] = {"QuantizeLinear": [], "DequantizeLinear": []}
    for node in graph.node:
        scale = constants.get(node.input[1]) if node.op_type in scales else None
        of_weights = node.input[0] in constants and len(constants[node.input[0]].dims) > 1
        if scale is not None and (node.op_type == "QuantizeLinear" or of_weights):
            scales[node.op_type] += numpy_helper.to_array(scale).reshape(-1).tolist()
    return {
        "nodes": dict(sorted(Counter(node.op_type for node in graph.node).items())),
        "integer_weights": [len(shapes), hashlib.sha256(repr(shapes).encode()).hexdigest()[:12]],
        "scales": {kind: round(float(np.mean(np.log2(found))), 4) for kind, found in scales.items()},
    }


def pruned(artifact: Artifact) -> dict[str, Any]:
    """The shapes of the weights that are left when a quarter of the channels leaves."""
    smaller = Prune(amount=0.25, criterion="l1", recipe=None)(artifact, context())
    shapes = sorted((name, tuple(value.shape)) for name, value in smaller.weights.items())
    return {"weights": sum(value.numel() for value in smaller.weights.values()),
            "shapes": hashlib.sha256(repr(shapes).encode()).hexdigest()[:12]}  # fmt: skip


def mixed(artifact: Artifact) -> list[str]:
    strict = Context(data=data(), device=load_device("host"), measured=False, max_accuracy_drop=-101.0)
    return list(MixedPrecision(images=16)(PLAIN(artifact, context()), strict).metrics["mixed"]["raised"])[:3]


def trained(artifact: Artifact) -> dict[str, Any]:
    """After two steps in integers."""
    stage = QuantizeAware(recipe=Recipe(epochs=2, batch_size=32, learning_rate=0.01))
    after = stage(artifact, context())
    return {"steps": after.metrics["training"]["steps"], **described(onnx_bytes(after))}


def refused(what: Callable[[Artifact], Any], artifact: Artifact) -> Any:
    """What is found, or that it is refused."""
    try:
        return what(artifact)
    except InputError:
        return "refused"


KINDS: dict[str, tuple[Callable[[str], Artifact], tuple[str, ...], tuple[Callable[[Artifact], Any], ...]]] = {
    "arch": (of_arch, ARCHS, (counted, int8, pruned, trained)),
    "timm": (of_timm, tuple(TIMM), (counted, int8, pruned)),
    "onnx": (of_file, tuple(FILES), (counted, int8)),
}
CASES = [f"{kind}: {name}" for kind, (_, names, _) in KINDS.items() for name in names]


def found(case: str) -> dict[str, Any]:
    """What is recorded of a case."""
    kind, _, name = case.partition(": ")
    make, _, parts = KINDS[kind]
    artifact = make(name)
    parts = (*parts, mixed) if case in ("arch: resnet8",) else parts
    return {part.__name__: refused(part, artifact) for part in parts}


def main() -> None:
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for case in sys.argv[1:] or CASES:
        known[case] = found(case)
        print(case, flush=True)
        lines = [f" {json.dumps(name)}: {json.dumps(known[name])}" for name in CASES if name in known]
        RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
