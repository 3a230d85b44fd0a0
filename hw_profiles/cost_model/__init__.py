"""The time of a kernel from its sizes: features, the costs of a device, and how they are fitted to measurements."""
