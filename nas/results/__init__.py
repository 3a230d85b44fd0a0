"""The numbers of a run: collected, tested, put into metrics.json."""
