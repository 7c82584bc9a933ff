"""Files of sales, from a folder into the log."""
