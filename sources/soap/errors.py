"""What can go wrong between us and a payment service.

ElectroRedError
├── Retriable
│   └── Unavailable   may pass: no connection, no whole answer in time, HTTP 5xx; asked again after a while
└── Refused
    ├── MostlyBad     most records of a page are no confirmations: none of it was taken
    ├── Faulted       the service says no, in its own words: a SOAP fault, expired credentials
    └── Untrusted     what came is no answer that we may read: a DTD, too much, from elsewhere, against the WSDL
"""

from __future__ import annotations

from kafka_client.errors import Refused, Retriable


class Unavailable(Retriable):
    """No whole answer now; the same question may be answered later."""


class Faulted(Refused):
    """The service refused, in its own words."""


class Untrusted(Refused):
    """What came is nothing that may be read; asking again would bring the same."""


class MostlyBad(Refused):
    """Most records of a page are no confirmations, as after a change of the format. Nothing of it was taken."""
