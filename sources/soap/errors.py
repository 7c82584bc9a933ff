"""Errors of a payment service.

ElectroRedError
├── Retriable
│   └── Unavailable   may pass: no connection, no whole answer in time, HTTP 5xx; asked again after a while
└── Refused
    ├── MostlyBad     most records of a page are no confirmations: none of it was taken
    ├── Faulted       a SOAP fault, as for expired credentials, with its text
    └── Untrusted     a response that must not be read: a DTD, too large, redirected, against the WSDL
"""

from __future__ import annotations

from kafka_client.errors import Refused, Retriable


class Unavailable(Retriable):
    """No whole response now; the same request may succeed later."""


class Faulted(Refused):
    """The service returned a SOAP fault, whose text is the message."""


class Untrusted(Refused):
    """A response that must not be read; a retry would return the same."""


class MostlyBad(Refused):
    """Most records of a page are no confirmations, as after a change of the format. Nothing of it was taken."""
