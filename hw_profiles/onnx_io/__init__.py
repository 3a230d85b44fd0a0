"""ONNX files: opened safely, read as a Workload, written from one, and run in ONNX Runtime."""
