"""The report of a run as one HTML page, drawn from metrics.json and the study."""
