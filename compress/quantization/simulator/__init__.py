"""The exported int8 file, simulated in PyTorch."""
