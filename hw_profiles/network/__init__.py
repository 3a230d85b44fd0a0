"""A network as a list of operations: what it computes, how its tensors are stored, and how it is quantized."""
