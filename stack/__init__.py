"""The `electrored` command, and Kafka, registry and PostgreSQL on one machine without containers."""
