"""Where studies are kept: storages by address, their failures, and signs of life of the workers on them."""
