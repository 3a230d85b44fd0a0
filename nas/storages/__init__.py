"""Where studies are stored: storages by address, their failures, and which of their workers are alive."""
