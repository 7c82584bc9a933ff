"""Change capture: the sales table in PostgreSQL → `sales-events`, by logical replication and a lock-free snapshot."""
