"""The options of each verb, and the texts of their help."""
