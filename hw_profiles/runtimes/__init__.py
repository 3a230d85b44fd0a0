"""The kernels that each runtime executes for a network: its fusion rules."""
