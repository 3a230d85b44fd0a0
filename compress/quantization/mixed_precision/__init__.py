"""Mixed precision: which operations keep more bits."""
