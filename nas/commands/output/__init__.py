"""What commands print and write: tables, devices as text, log lines, checks of files to be written."""
