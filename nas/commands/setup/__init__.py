"""What one does before the first run: ``nas init`` writes a file of settings, ``nas doctor`` checks the machine."""
