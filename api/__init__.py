"""The HTTP API: FastAPI over the results database, read only."""
