"""The pretrained models of timm that keep a budget."""
