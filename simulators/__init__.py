"""The outside world: what shops, partners and payment services would do, done by a seed."""
