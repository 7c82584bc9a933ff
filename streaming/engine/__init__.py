"""The vectorised exactly-once engine, independent of sales."""
