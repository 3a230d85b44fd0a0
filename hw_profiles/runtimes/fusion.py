"""Fuses a Workload into the kernels of a runtime."""

from __future__ import annotations

from hw_profiles.network.workload import VIEWS, WEIGHTED, Workload
from hw_profiles.runtimes.kernels import Fuser, Kernel
from hw_profiles.runtimes.ort_float import FloatFuser
from hw_profiles.runtimes.ort_int8 import IntegerFuser
from hw_profiles.runtimes.ort_mixed import MixedFuser, weights_in_float
from hw_profiles.spelling_suggestions import check_one_of

__all__ = ["RUNTIMES", "Kernel", "fuse"]

RUNTIMES = ("ort", "c99", "tflite", "ncnn", "torch")
_WITH_RELU_ONLY = ("relu", "relu6", "clip")  # what a layer of TensorFlow Lite takes up


def fuse(workload: Workload, runtime: str = "ort") -> tuple[Kernel, ...]:
    """The workload as ``runtime`` runs it, in order: ``"ort"`` is ONNX Runtime's CPU provider, ``"c99"`` plain C,
    ``"tflite"`` TensorFlow Lite (on microcontrollers too), ``"ncnn"`` ncnn, ``"torch"`` PyTorch's compiler.

    In float32 ONNX Runtime keeps the channels of convolutions in blocks of 16: it copies a tensor into another layout
    where an operation cannot read it, a convolution takes up the sum that follows it if the other summand lies in
    blocks as well, and then an activation. In int8 it computes with the channels last; convolutions, linear layers and
    sums take up a ReLU, and functions that it has no integers for are computed in float between two conversions.
    Flattening costs nothing. Of a network of both each operation is computed as the format of its weights says.

    The other runtimes are taken to run layer by layer: what has weights, and sums, with the activation that follows
    (TensorFlow Lite: if it is a ReLU), everything else for itself. How they lay out tensors is not modeled.

    >>> from search_spaces import preset
    >>> [k.kind for k in fuse(preset("resnet8").workload())].count("conv")
    7
    """
    check_one_of("runtime", runtime, RUNTIMES)
    if runtime != "ort":
        return _fuse_layers(workload, _WITH_RELU_ONLY if runtime == "tflite" else None)
    if is_mixed(workload):
        return MixedFuser(workload).run()
    return _ort(workload, "").run()


def fuse_part(workload: Workload, entry: str, *, ends: bool) -> tuple[tuple[Kernel, ...], str]:
    """The kernels that ONNX Runtime makes of a stretch of a network, and the layout of what it leaves.

    ``entry`` is the layout of what it reads, nothing where the network begins; ``ends`` whether the network ends with
    it. All parts' kernels are those of the network if no operation that reads the seam could be taken up before it.

    >>> from search_spaces import preset
    >>> fuse_part(preset("resnet8").workload(), "", ends=True)[1]
    'plain'
    """
    fuser = _ort(workload, entry)
    return fuser.run(ends=ends), fuser.exit()


def is_mixed(workload: Workload) -> bool:
    """Whether some operations are computed in 8-bit integers and others in float.

    >>> from search_spaces import preset
    >>> is_mixed(preset("resnet8").workload().with_precision("int8"))
    False
    """
    ops = [op for op in workload.ops if op.kind in WEIGHTED and op.stores_weights]
    if not workload.formats or not any(workload.format(name).bits == 8 for name in workload.shapes):
        return False
    return 0 < len(weights_in_float(workload)) < len(ops)


def in_integers(workload: Workload) -> bool:
    """Whether some operation is computed in 8-bit integers; of a network without weights, whether it reads such.

    >>> from search_spaces import preset
    >>> [in_integers(preset("resnet8").workload().with_precision(each)) for each in ("fp32", "int8")]
    [False, True]
    """
    ops = [op for op in workload.ops if op.kind in WEIGHTED and op.stores_weights]
    if not ops:
        return workload.format(workload.input).bits == 8
    return any(not workload.format(op.weight).floating and workload.format(op.inputs[0]).bits == 8 for op in ops)


def _ort(workload: Workload, entry: str) -> FloatFuser | IntegerFuser:
    return IntegerFuser(workload, entry) if in_integers(workload) else FloatFuser(workload, entry)


def _fuse_layers(workload: Workload, functions: tuple[str, ...] | None) -> tuple[Kernel, ...]:
    """Weighted operations and sums with the activation that follows them if it is one of ``functions`` (None: any);
    everything else for itself."""
    fuser = Fuser(workload)
    for op in workload.ops:
        if op.name in fuser.taken or op.kind in VIEWS:
            continue
        group = [op]
        after = fuser.only_reader(op.name)
        takes = op.kind in (*WEIGHTED, "add", "mul") and after is not None and after.kind == "activation"
        if takes and after is not None and (functions is None or after.function in functions):
            fuser.take(group, after)
        inside = {o.name for o in group}
        inputs = tuple(dict.fromkeys(x for o in group for x in o.inputs if x not in inside))
        fuser.emit(group, inputs, "any", (), workload.tensor_bytes(group[-1].name))
    return tuple(fuser.kernels)
