"""SOAP 1.1 by hand: a request that is checked against the WSDL's schema, a page or a fault as answer."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lxml import etree

from contracts.soap import ENVELOPE, NAMESPACE, WSDL

# A request has a token, a cursor and a limit.
REQUEST_BYTES = 64 * 1024
# An older digest may be a replay.
TOKEN_AGE = timedelta(minutes=5)

_XS = "http://www.w3.org/2001/XMLSchema"
_OASIS = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss"
WSSE = f"{_OASIS}-wssecurity-secext-1.0.xsd"
_WSU = f"{_OASIS}-wssecurity-utility-1.0.xsd"
_FIELDS = ("payment_id", "sale_id", "amount", "currency", "status", "confirmed_at")


class SoapFault(Exception):
    """A SOAP fault: a code with its prefix, and a text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True)
class Request:
    """An authenticated request."""

    cursor: str
    limit: int


def _schema() -> etree.XMLSchema:
    (schema,) = etree.parse(str(WSDL)).iter(f"{{{_XS}}}schema")
    return etree.XMLSchema(schema)


SCHEMA = _schema()


def read(body: bytes, username: str, password: str, now: Callable[[], datetime]) -> Request:
    """The request in an envelope. Raises SoapFault."""
    if len(body) > REQUEST_BYTES:
        raise SoapFault("soap:Client", "the request is too large")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
    try:
        envelope = etree.fromstring(body, parser)
    except etree.XMLSyntaxError as error:
        raise SoapFault("soap:Client", f"the request is no XML: {error}") from error
    if envelope.getroottree().docinfo.doctype:
        raise SoapFault("soap:Client", "a request has no DTD")
    if envelope.tag != f"{{{ENVELOPE}}}Envelope":
        raise SoapFault("soap:VersionMismatch", "the request is no SOAP 1.1 envelope")
    _check_token(envelope, username, password, now())
    content = envelope.find(f"{{{ENVELOPE}}}Body/*")
    if content is None or content.tag != f"{{{NAMESPACE}}}GetPaymentConfirmations":
        raise SoapFault("soap:Client", "the only operation is GetPaymentConfirmations")
    if not SCHEMA.validate(content):
        raise SoapFault("soap:Client", "; ".join(error.message for error in SCHEMA.error_log))
    return Request(
        content.findtext(f"{{{NAMESPACE}}}cursor") or "",
        int(content.findtext(f"{{{NAMESPACE}}}limit")),
    )


def _check_token(envelope: etree._Element, username: str, password: str, now: datetime) -> None:
    token = envelope.find(f"{{{ENVELOPE}}}Header/{{{WSSE}}}Security/{{{WSSE}}}UsernameToken")
    if token is None:
        raise SoapFault("wsse:InvalidSecurity", "the request carries no UsernameToken")
    given = token.find(f"{{{WSSE}}}Password")
    expected = password
    if given is not None and str(given.get("Type")).endswith("#PasswordDigest"):
        expected = _digest(token, password, now)
    is_known = hmac.compare_digest((token.findtext(f"{{{WSSE}}}Username") or "").encode(), username.encode())
    text = "" if given is None else given.text or ""
    if not hmac.compare_digest(text.encode(), expected.encode()) or not is_known:
        raise SoapFault("wsse:FailedAuthentication", "user name and password do not fit")


def _digest(token: etree._Element, password: str, now: datetime) -> str:
    """Base64 (SHA-1 (nonce + created + password)), as the UsernameToken profile has it."""
    created = token.findtext(f"{{{_WSU}}}Created") or ""
    try:
        nonce = base64.b64decode(token.findtext(f"{{{WSSE}}}Nonce") or "", validate=True)
        is_fresh = abs(now - datetime.fromisoformat(created)) <= TOKEN_AGE
    except (binascii.Error, ValueError, TypeError) as error:
        raise SoapFault("wsse:InvalidSecurity", "nonce or time of the digest cannot be read") from error
    if not is_fresh:
        raise SoapFault("wsse:FailedAuthentication", "the digest is not of now")
    return base64.b64encode(hashlib.sha1(nonce + created.encode() + password.encode()).digest()).decode()


def page(entries: Sequence[Sequence[str]], next_cursor: str, more: bool) -> bytes:
    """A page in an envelope; an entry's values are in the order of the schema."""
    answer = etree.Element(f"{{{NAMESPACE}}}GetPaymentConfirmationsResponse", nsmap={"p": NAMESPACE})
    for entry in entries:
        record = etree.SubElement(answer, f"{{{NAMESPACE}}}confirmation")
        for name, value in zip(_FIELDS, entry, strict=True):
            etree.SubElement(record, f"{{{NAMESPACE}}}{name}").text = value
    etree.SubElement(answer, f"{{{NAMESPACE}}}next_cursor").text = next_cursor
    etree.SubElement(answer, f"{{{NAMESPACE}}}more").text = str(more).lower()
    return _enveloped(answer)


def fault(error: SoapFault) -> bytes:
    """A fault in an envelope."""
    answer = etree.Element(f"{{{ENVELOPE}}}Fault", nsmap={"soap": ENVELOPE, "wsse": WSSE})
    etree.SubElement(answer, "faultcode").text = error.code
    etree.SubElement(answer, "faultstring").text = error.text
    return _enveloped(answer)


def _enveloped(content: etree._Element) -> bytes:
    envelope = etree.Element(f"{{{ENVELOPE}}}Envelope", nsmap={"soap": ENVELOPE})
    etree.SubElement(envelope, f"{{{ENVELOPE}}}Body").append(content)
    return bytes(etree.tostring(envelope, xml_declaration=True, encoding="utf-8"))
