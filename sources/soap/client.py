"""The payment service as we ask it: zeep with everything forbidden that a hostile answer could use.

zeep looks for a DTD only after libxml2 has read it; so an answer with one is refused before it is parsed, as is one
in an encoding in which it could hide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import zeep
from lxml import etree
from zeep.exceptions import DTDForbidden, EntitiesForbidden, ExternalReferenceForbidden
from zeep.wsse.username import UsernameToken

from contracts.settings import SoapSettings
from contracts.soap import ENVELOPE, NAMESPACE, WSDL
from sources.soap.confirmation import Confirmation, normal, refusal
from sources.soap.errors import Faulted, Unavailable, Untrusted
from sources.soap.transport import Answer, Limits, Transport

_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_RESPONSE = f"{{{NAMESPACE}}}GetPaymentConfirmationsResponse"
_RECORD = f"{{{NAMESPACE}}}confirmation"
_FAULT = f"{{{ENVELOPE}}}Body/{{{ENVELOPE}}}Fault"
_FIELDS = tuple(field.name for field in fields(Confirmation))
# Encodings in which ASCII is ASCII, so that what is looked for in bytes is found.
_DECLARED = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([^\"']*)", re.IGNORECASE)
_READABLE = (b"utf-8", b"us-ascii", b"ascii")
# What a dead letter's record is cut to.
_LETTER_BYTES = 10_000
# What a fault or a reason is cut to.
_SHOWN_CHARACTERS = 1_000


@dataclass(frozen=True)
class Bad:
    """A record that is no confirmation: its place on the page, why, and the XML as it came."""

    index: int
    reason: str
    xml: bytes


@dataclass(frozen=True)
class Page:
    """What stands behind a cursor; `good` are valid."""

    good: list[Confirmation]
    bad: list[Bad]
    next_cursor: str
    more: bool


class PaymentService:
    """One payment service. Knows nothing of what is done with its answers."""

    def __init__(self, settings: SoapSettings, limits: Limits | None = None, wsdl: Path = WSDL) -> None:
        """Raises Untrusted if the address is not allowed, or the document names another one to load."""
        transport = _Guarded(wsdl, settings.soap_wsdl, settings.soap_hosts, limits or Limits())
        strict = zeep.Settings(
            strict=True,
            forbid_dtd=True,
            forbid_entities=True,
            forbid_external=True,
            xml_huge_tree=False,
            force_https=False,
        )
        password = settings.soap_password.get_secret_value()
        token = UsernameToken(
            settings.soap_username, password, use_digest=settings.soap_digest, zulu_timestamp=True
        )
        try:
            self._sieve = _Sieve(_schema(wsdl))
            self._client = zeep.Client(
                str(wsdl), wsse=token, transport=transport, plugins=[self._sieve], settings=strict
            )
        except ExternalReferenceForbidden as error:
            raise Untrusted(f"the WSDL names another document: {error.url}") from error
        # The address in the document is an example; the transport asks the configured one.
        self._ask = self._client.create_service(
            f"{{{NAMESPACE}}}PaymentsSoap", settings.soap_wsdl
        ).GetPaymentConfirmations

    def page(self, cursor: str, limit: int) -> Page:
        """The confirmations behind the cursor, at most about `limit`. Raises Unavailable, Faulted or Untrusted."""
        self._sieve.reset()
        try:
            found = self._ask(cursor=cursor, limit=limit)
        except zeep.exceptions.Fault as error:
            if not self._sieve.is_fault:
                raise Unavailable("HTTP 500 without a fault") from error
            raise Faulted(f"{_local(error.code or 'fault')}: {_shown(error.message)}") from error
        except zeep.exceptions.TransportError as error:
            raise Unavailable(f"the answer (HTTP {error.status_code}) is no whole XML document") from error
        except (DTDForbidden, EntitiesForbidden, ExternalReferenceForbidden) as error:
            raise Untrusted(
                f"the answer holds a DTD, an entity or a reference: {_shown(str(error))}"
            ) from error
        except zeep.exceptions.Error as error:
            raise Untrusted(f"the answer is not what the WSDL says: {_shown(str(error))}") from error
        if found is None or self._sieve.kept is None:
            raise Untrusted("the answer holds no page")
        return _page(found, self._sieve.kept, self._sieve.bad)


class _Guarded(Transport):
    def post_xml(self, address: str, envelope: etree._Element, headers: Mapping[str, str]) -> Answer:
        answer = super().post_xml(address, envelope, headers)
        _refuse_dtd(answer.content)
        return answer


def _refuse_dtd(content: bytes) -> None:
    head = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    declared = _DECLARED.match(head)
    if b"\0" in head[:4] or (declared is not None and declared[1].lower() not in _READABLE):
        raise Untrusted("the answer is not in UTF-8")
    if b"<!DOCTYPE" in content:
        raise Untrusted("the answer holds a DTD")


def _schema(wsdl: Path) -> etree.XMLSchema:
    """The document's own XML Schema, which names no other."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    document = etree.fromstring(wsdl.read_bytes(), parser)
    (schema,) = document.iter("{http://www.w3.org/2001/XMLSchema}schema")
    for name in ("import", "include", "redefine"):
        for found in schema.iter(f"{{http://www.w3.org/2001/XMLSchema}}{name}"):
            raise Untrusted(f"the WSDL names another document: {found.get('schemaLocation')}")
    return etree.XMLSchema(schema)


@dataclass
class _Sieve:
    """Takes bad records out of an answer before zeep reads it, which would fail on some and turn others into None."""

    schema: etree.XMLSchema
    is_fault: bool = False
    kept: list[tuple[int, etree._Element]] | None = None
    bad: list[Bad] = field(default_factory=list)

    def reset(self) -> None:
        self.is_fault, self.kept, self.bad = False, None, []

    def egress(
        self, envelope: etree._Element, headers: Any, _operation: Any, _options: Any
    ) -> tuple[etree._Element, Any]:
        """Called by zeep with each question."""
        return envelope, headers

    def ingress(self, envelope: etree._Element, headers: Any, _operation: Any) -> tuple[etree._Element, Any]:
        """Called by zeep with each answer, faults included."""
        self.is_fault = envelope.find(_FAULT) is not None
        page = envelope.find(f"{{{ENVELOPE}}}Body/{_RESPONSE}")
        if page is None:
            return envelope, headers
        # Whether what these name is opened is up to libxml2's version.
        for element in page.iter():
            if any(name.startswith(f"{{{_XSI}}}") and "ocation" in name for name in element.attrib):
                raise Untrusted("the answer names a schema of its own")
        self.kept = []
        for index, record in enumerate(page.findall(_RECORD)):
            if self.schema.validate(record):
                self.kept.append((index, record))
            else:
                reason = _shown("; ".join(error.message for error in self.schema.error_log))
                self.bad.append(Bad(index, reason.replace(f"{{{NAMESPACE}}}", ""), _xml(record)))
                page.remove(record)
        if not self.schema.validate(page):
            raise Untrusted(f"the answer is not what the WSDL says: {_shown(str(self.schema.error_log))}")
        return envelope, headers


def _page(found: Any, kept: list[tuple[int, etree._Element]], bad: list[Bad]) -> Page:
    good = []
    for (index, xml), record in zip(kept, found.confirmation, strict=True):
        values = {name: record[name] for name in _FIELDS}
        # None: what XML Schema allows and Python cannot hold.
        missing = [name for name, value in values.items() if value is None]
        confirmation = Confirmation(**values) if missing else normal(Confirmation(**values))
        reason = f"{', '.join(missing)} cannot be read" if missing else refusal(confirmation)
        if reason is None:
            good.append(confirmation)
        else:
            bad.append(Bad(index, reason, _xml(xml)))
    return Page(good, bad, found.next_cursor or "", found.more)


def _xml(record: etree._Element) -> bytes:
    """The record as it came, as much of it as a person looks at: Kafka would refuse a letter of megabytes."""
    return bytes(etree.tostring(record, encoding="utf-8", with_tail=False))[:_LETTER_BYTES]


def _local(code: str) -> str:
    """A fault's code without the prefix that only its envelope knows."""
    return code.rsplit(":", 1)[-1]


def _shown(text: str | None) -> str:
    text = " ".join((text or "").split())
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
