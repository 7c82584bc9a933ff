"""Observability: structured logs, Prometheus metrics and waits, the same in every process."""
