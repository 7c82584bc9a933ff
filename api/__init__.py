"""Totals → people: FastAPI over the results database, read only."""
