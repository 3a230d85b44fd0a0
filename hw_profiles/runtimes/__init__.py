"""The kernels that each runtime makes of a network: its fusion rules."""
