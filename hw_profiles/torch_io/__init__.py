"""PyTorch modules and timm models, read as a Workload."""
