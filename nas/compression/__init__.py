"""``nas compress``: a given network made smaller within a promised accuracy."""
