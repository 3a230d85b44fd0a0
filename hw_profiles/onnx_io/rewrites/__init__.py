"""ONNX models written anew, so that they say the same in the form that others read: float32, normal, folded."""
