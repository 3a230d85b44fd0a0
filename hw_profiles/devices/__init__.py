"""Devices: what is known of each, one TOML file for each, and the machine that runs this process."""
