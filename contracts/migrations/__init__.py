"""Alembic migrations of the results database; `contracts.migrate` runs them."""
