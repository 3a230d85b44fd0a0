"""The README of a generated program."""

from __future__ import annotations

from compress.c99.c_literals import label
from compress.c99.layers import Network, Tensor

_UNVERIFIED = "This program is **unverified**: it was not run on images yet."


def readme(network: Network, file_name: str, proof: str = _UNVERIFIED) -> str:
    """What the program is, how it is used and what is known of it, in Markdown.

    >>> from compress.c99.network_reader import read_network
    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from hw_profiles.network.quantization import fixed_quantization
    >>> from search_spaces import preset
    >>> w = preset("resnet8").workload()
    >>> readme(read_network(write_onnx(w, quantization=fixed_quantization(w))), "a.onnx").splitlines()[0]
    '# a.onnx as C99'
    """
    height, width, channels = network.input.shape
    return f"""# {label(file_name)} as C99

The same integers as the ONNX file, without heap and without any library but `stdint.h` and `string.h`.

| | bytes |
|---|---|
| input: {height} rows, {width} columns, {channels} channels, `int8_t` | {network.input.size} |
| output: {_sides(network.output)}, `int8_t` | {network.output.size} |
| static arena of the activations | {network.arena_bytes} |
| weights | {network.weights} |

    make test          # builds for this machine, runs the stored inputs, prints differences

On a microcontroller compile `model.c` and `kernels.c` with `-std=c99 -ffp-contract=off -Os`. Where the processor has
DSP instructions (Cortex-M4, M7, M33), convolutions use them, with the same results; `-DKERNEL_PORTABLE` does without.
Then call

    #include "model.h"

    static int8_t in[MODEL_INPUT_BYTES], out[MODEL_OUTPUT_BYTES];
    model_init();
    model_run(in, out);
    int32_t best = model_argmax(out);

The input lies row by row, the channels of a pixel together. A number `x` becomes `x / MODEL_INPUT_SCALE`, rounded half
to even, plus `MODEL_INPUT_ZERO_POINT`, kept in -128..127. An output stands for
`(out - MODEL_OUTPUT_ZERO_POINT) * MODEL_OUTPUT_SCALE`. Unsigned integers of the file are these plus 128.

## Verification

{proof}
"""


def _sides(tensor: Tensor) -> str:
    height, width, channels = tensor.shape
    return f"{channels} numbers" if height == width == 1 else f"{height} rows, {width} columns, {channels} channels"
