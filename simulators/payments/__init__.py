"""A payment service as a company buys it: SOAP 1.1, confirmations as an append-only list, failures on demand."""
