"""OpenLineage: what a job reads and writes column by column, its runs as events, and what readers are told of them."""
