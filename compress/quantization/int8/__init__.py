"""Int8: post-training quantization and quantization-aware training."""
