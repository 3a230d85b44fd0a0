"""Weight sharing: the weights of a layer take a few values."""
