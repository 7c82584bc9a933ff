"""The payment service's contract: the one WSDL of the service and its client."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lxml import etree

WSDL = Path(__file__).with_name("payments.wsdl")
# The namespace of its types, its operation and its binding.
NAMESPACE = "urn:electrored:payments:1"
ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/"
_XS = "{http://www.w3.org/2001/XMLSchema}"


@cache
def confirmation_types() -> dict[str, str]:
    """The elements of a confirmation, each with the XML Schema type that its own type restricts."""
    schema = etree.parse(str(WSDL)).find(f".//{_XS}schema")
    bases = {
        own.get("name"): own.find(f"{_XS}restriction").get("base") for own in schema.iter(f"{_XS}simpleType")
    }
    elements = schema.find(f"{_XS}complexType[@name='Confirmation']").iter(f"{_XS}element")
    return {element.get("name"): bases[element.get("type").partition(":")[2]] for element in elements}
