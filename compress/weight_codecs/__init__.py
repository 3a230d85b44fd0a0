"""Weights of an ONNX file stored in fewer bits: fp16, int4, binary, and the formats of files."""
