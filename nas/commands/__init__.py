"""The command line: one module for each longer verb."""
