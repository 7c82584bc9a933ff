"""The outside world → `sales-events`: every fact once, with the source's position in the same Kafka transaction."""
