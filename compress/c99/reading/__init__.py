"""From the nodes of a QDQ file to the layers of a program: what moves, what computes, and where it lies."""
