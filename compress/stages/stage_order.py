"""All stages by name, in the order in which they are run."""

from __future__ import annotations

from compress.clustering.cluster import Cluster
from compress.distillation.distill import Distill
from compress.fnz.encode_stage import Encode
from compress.pruning.prune import Prune
from compress.quantization.int8.ptq import Quantize
from compress.quantization.int8.qat import QuantizeAware
from compress.quantization.mixed_precision.mixed_precision import MixedPrecision
from compress.quantization.weight_only.binary import Binarize
from compress.quantization.weight_only.fp16 import Half
from compress.quantization.weight_only.int4 import Int4
from compress.sparsity.sparsify import Sparsify
from compress.stage_interface import Stage

# In the order in which they make sense: architecture, pruning, zeros, then fewer bits in the file, integers, shared
# values, and the coding.
STAGES: dict[str, type[Stage]] = {
    "distill": Distill,
    "prune": Prune,
    "sparsify": Sparsify,
    "fp16": Half,
    "int4": Int4,
    "binary": Binarize,
    "int8": Quantize,
    "qat": QuantizeAware,
    "mixed": MixedPrecision,
    "cluster": Cluster,
    "encode": Encode,
}
