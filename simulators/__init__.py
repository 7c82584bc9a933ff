"""Simulators of the outside world: shops, branch offices and a payment service, reproducible by seed."""
