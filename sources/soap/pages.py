"""The bytes of a response → a page: parsed once, with one text of each element for schema and reader.

The tree has no comments, processing instructions or entities: what stands around them is one text, as XML has it. A
response that two readers could understand differently is refused: with a DTD, in an encoding in which one could hide
or that differs from the headers, with more than one body.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from lxml import etree

from contracts.soap import ENVELOPE, NAMESPACE
from sources.soap.confirmation import Confirmation, normal, refusal
from sources.soap.errors import Faulted, Unavailable, Untrusted
from sources.soap.transport import Answer

_XS = "http://www.w3.org/2001/XMLSchema"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_RESPONSE = f"{{{NAMESPACE}}}GetPaymentConfirmationsResponse"
_RECORD = f"{{{NAMESPACE}}}confirmation"
_CURSOR, _MORE = f"{{{NAMESPACE}}}next_cursor", f"{{{NAMESPACE}}}more"
_FIELDS = tuple(field.name for field in fields(Confirmation))
_OF_A_PAGE = ("confirmation", "next_cursor", "more")
_DECLARED = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([^\"']*)", re.IGNORECASE)
# Supersets of ASCII: a response of ASCII alone is the same text in each of them.
_LIKE_ASCII = re.compile(r"ascii|utf-8|iso8859-\d+|cp125\d")
# What XML Schema takes from both ends of a number, a time or a truth value.
_BLANK = " \t\r\n"
# What a dead letter's record is cut to.
_LETTER_BYTES = 10_000
# What a fault or a reason is cut to.
_SHOWN_CHARACTERS = 1_000
# So many names of elements that are passed over are counted one by one.
_MOST_NAMES = 20


@dataclass(frozen=True)
class Bad:
    """A record that is no confirmation: its place on the page, why, and its XML."""

    index: int
    reason: str
    xml: bytes


@dataclass(frozen=True)
class Page:
    """The records behind a cursor; `good` are valid. `passed_over`: elements that the contract does not name."""

    good: list[Confirmation]
    bad: list[Bad]
    next_cursor: str
    more: bool
    passed_over: Mapping[str, int] = field(default_factory=dict)


class Reader:
    """Reads answers by the contract's XML Schema."""

    def __init__(self, wsdl: Path) -> None:
        """Raises Untrusted if the document names another one."""
        self._schema = _schema(wsdl)

    def page(self, answer: Answer) -> Page:
        """Raises Faulted with the fault's text, Unavailable for half a response, Untrusted for what is none."""
        try:
            body = _body(_tree(answer))
        except Untrusted as error:
            # The response of a proxy, or of a server that fails.
            if answer.status_code == 500 and not isinstance(error, _Unsafe):
                raise Unavailable("HTTP 500 without a fault") from error
            raise
        if body.tag == f"{{{ENVELOPE}}}Fault":
            raise Faulted(_fault(body))
        if answer.status_code == 500:
            raise Unavailable("HTTP 500 without a fault")
        if body.tag != _RESPONSE:
            raise Untrusted(f"the answer holds no page but {_shown(_local(body.tag))}")
        # Whether libxml2 opens what these name depends on its version.
        for element in body.iter():
            if any(name.startswith(f"{{{_XSI}}}") and "ocation" in name for name in element.attrib):
                raise Untrusted("the answer names a schema of its own")
        return self._read(body)

    def _read(self, page: etree._Element) -> Page:
        good, bad = [], []
        passed_over = Counter[str]()
        more = page.find(_MORE)
        added = [] if more is None else list(more.itersiblings())
        twice = _pass_over(added, _OF_A_PAGE, passed_over)
        if twice is not None:
            raise Untrusted(f"the answer does not match the WSDL: it has {twice} again at its end")
        for index, record in enumerate(page.findall(_RECORD)):
            confirmation = self._confirmation(record, passed_over)
            if isinstance(confirmation, Confirmation):
                good.append(confirmation)
            else:
                bad.append(Bad(index, confirmation, _xml(record)))
                page.remove(record)
        if not self._schema.validate(page):
            raise Untrusted(f"the answer does not match the WSDL: {_shown(self._schema_errors())}")
        is_on = _text(page.find(_MORE)).strip(_BLANK) in ("true", "1")
        return Page(good, bad, _text(page.find(_CURSOR)), is_on, dict(passed_over))

    def _confirmation(self, record: etree._Element, passed_over: Counter[str]) -> Confirmation | str:
        """The confirmation, or why there is none."""
        if not self._schema.validate(record):
            return _shown(self._schema_errors().replace(f"{{{NAMESPACE}}}", ""))
        twice = _pass_over(record[len(_FIELDS) :], _FIELDS, passed_over)
        if twice is not None:
            return f"{twice} is there again at the end"
        values = {name: _text(record.find(f"{{{NAMESPACE}}}{name}")) for name in _FIELDS}
        try:
            at = datetime.fromisoformat(values["confirmed_at"].strip(_BLANK))
        except ValueError as error:
            return f"confirmed_at cannot be read: {_shown(str(error))}"
        amount = Decimal(values["amount"].strip(_BLANK))
        confirmation = normal(
            Confirmation(
                values["payment_id"], values["sale_id"], amount, values["currency"], values["status"], at
            )
        )
        return refusal(confirmation) or confirmation

    def _schema_errors(self) -> str:
        return "; ".join(error.message for error in self._schema.error_log)


class _Unsafe(Untrusted):
    """Refused before or while it is parsed, whatever the status."""


def _tree(answer: Answer) -> etree._Element:
    content = answer.content
    declared = _DECLARED.match(content.removeprefix(codecs.BOM_UTF8).lstrip())
    for name in (answer.charset, declared[1].decode("ascii", "replace") if declared is not None else None):
        if name is not None and not _is_read_as_utf8(name, content):
            raise _Unsafe(f"the answer is not in UTF-8 but in {_shown(name)}")
    if b"\0" in content:
        raise _Unsafe("the answer is not in UTF-8: it holds bytes of 0")
    # libxml2 expands entities in attributes whatever its options are, so check before parsing.
    if b"<!DOCTYPE" in content:
        raise _Unsafe("the answer holds a DTD")
    parser = etree.XMLParser(
        # Whatever the document declares.
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        attribute_defaults=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        return etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise Unavailable(f"the answer (HTTP {answer.status_code}) is no whole XML document") from error


def _is_read_as_utf8(name: str, content: bytes) -> bool:
    """Whether the bytes mean in this encoding what they mean in UTF-8."""
    try:
        codec = codecs.lookup(name.strip()).name
    except (LookupError, ValueError):
        return False
    return codec == "utf-8" or (content.isascii() and _LIKE_ASCII.fullmatch(codec) is not None)


def _body(envelope: etree._Element) -> etree._Element:
    """The one element that the envelope is about."""
    if envelope.tag != f"{{{ENVELOPE}}}Envelope":
        raise Untrusted(
            f"the answer holds no page: it is no SOAP 1.1 envelope but {_shown(_local(envelope.tag))}"
        )
    bodies = envelope.findall(f"{{{ENVELOPE}}}Body")
    if len(bodies) != 1 or len(bodies[0]) != 1:
        raise Untrusted("the answer holds no page: there is not one body with one element")
    return bodies[0][0]


def _fault(fault: etree._Element) -> str:
    texts = {_local(child.tag): _text(child) for child in fault}
    # Without the prefix, which only the envelope declares.
    code = texts.get("faultcode", "fault").strip(_BLANK).rsplit(":", 1)[-1]
    return f"{code}: {_shown(texts.get('faultstring', ''))}"


def _pass_over(extra: list[etree._Element], known: tuple[str, ...], counted: Counter[str]) -> str | None:
    """Count elements that a newer contract added; returns the name of a known one, which would have two values."""
    names = [_local(element.tag) for element in extra]
    for name in names:
        if name in known:
            return name
    for name in names:
        counted[name if name in counted or len(counted) < _MOST_NAMES else "others"] += 1
    return None


def _text(element: etree._Element) -> str:
    """The whole text of an element, as the schema validated it."""
    return "".join(element.itertext())


def _xml(record: etree._Element) -> bytes:
    """The record as it came, cut for a reader: Kafka would refuse a dead letter of megabytes."""
    return bytes(etree.tostring(record, encoding="utf-8", with_tail=False))[:_LETTER_BYTES]


def _local(tag: str) -> str:
    return str(etree.QName(tag).localname)


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _schema(wsdl: Path) -> etree.XMLSchema:
    """The document's own XML Schema, which names no other."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    document = etree.fromstring(wsdl.read_bytes(), parser)
    (schema,) = document.iter(f"{{{_XS}}}schema")
    for name in ("import", "include", "redefine"):
        for element in schema.iter(f"{{{_XS}}}{name}"):
            raise Untrusted(f"the WSDL names another document: {element.get('schemaLocation')}")
    return etree.XMLSchema(schema)
