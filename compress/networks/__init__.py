"""The network that is compressed: where it comes from, its weights, and how it is exported."""
