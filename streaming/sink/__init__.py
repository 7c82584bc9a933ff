"""Totals out of the engine: into the results database, and onto the public topics."""
