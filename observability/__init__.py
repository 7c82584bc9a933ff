"""How one watches the platform: structured logs and Prometheus metrics, the same in every process."""
