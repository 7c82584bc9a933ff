"""The payment service's contract: the service and its client both work by this one file, and load no other."""

from __future__ import annotations

from pathlib import Path

WSDL = Path(__file__).with_name("payments.wsdl")
# The namespace of its types, its operation and its binding.
NAMESPACE = "urn:electrored:payments:1"
ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/"
