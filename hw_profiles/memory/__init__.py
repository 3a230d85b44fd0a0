"""The memory that activations need: lifetimes, order of kernels, buffers that are overwritten, offsets in an arena."""
