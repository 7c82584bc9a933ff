"""The API's routes, one module per question."""
