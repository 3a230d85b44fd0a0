"""Where images come from: folders, archives, arrays in files, data sets of others."""
