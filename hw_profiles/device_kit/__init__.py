"""A fixed set of small networks whose times tell what kind of machine they ran on, and devices made of such times."""
