"""The vectorised exactly-once engine. It knows nothing of sales."""
