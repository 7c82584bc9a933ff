"""The nouns every room shares: schemas, topics, results tables, settings, and how a process connects."""
