"""A run: search, winner, teacher, stages, baseline, results, each resumable."""
