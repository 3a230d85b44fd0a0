"""The pretrained models of timm: published accuracies, stored workloads, and what they cost on a device."""
