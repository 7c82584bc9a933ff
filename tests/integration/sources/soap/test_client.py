"""What a payment service may answer, from good pages to hostile documents, over real HTTP."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from contracts.soap import WSDL
from kafka_client.errors import ElectroRedError
from simulators.payments import envelope
from sources.soap.client import PaymentService
from sources.soap.confirmation import Confirmation
from sources.soap.errors import Unavailable, Untrusted
from sources.soap.pages import Page
from sources.soap.transport import Limits
from stack import ports
from tests.support.soap_server import XML, Reply, Server, entry, serving

GOOD = envelope.page([entry(1), entry(2)], "2", False)
HALF = GOOD[: len(GOOD) // 2]
DTD = '<?xml version="1.0"?><!DOCTYPE x [{}]>'


def ask(server: Server, limits: Limits | None = None) -> Page:
    return PaymentService(server.settings(), limits).page("", 10)


def with_dtd(declarations: str, entity: str) -> bytes:
    """A page whose first sale id is an entity."""
    text = GOOD.decode().split("?>", 1)[1].replace("<p:sale_id>s1<", f"<p:sale_id>&{entity};<")
    return (DTD.format(declarations) + text).encode()


def in_encoding(name: str) -> bytes:
    declared = f'version="1.0" encoding="{name}"'
    return with_dtd('<!ENTITY e "x">', "e").decode().replace('version="1.0"', declared).encode(name)


def test_a_page_has_what_the_service_said(server: Server) -> None:
    server.gives(Reply(GOOD))
    page = ask(server)
    at = datetime(2026, 11, 2, 12, tzinfo=UTC)
    assert page == Page(
        [
            Confirmation("p1", "s1", Decimal("1.5000"), "EUR", "CONFIRMED", at),
            Confirmation("p2", "s2", Decimal("2.5000"), "EUR", "CONFIRMED", at),
        ],
        [],
        "2",
        False,
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"amount": "about 3"}, "'about 3'"),
        ({"amount": "1.00001"}, "fractionDigits"),
        ({"amount": "100000000000000"}, "maxInclusive"),
        ({"amount": "NaN"}, "NaN"),
        ({"amount": ""}, "amount"),
        ({"currency": "euro"}, "pattern"),
        ({"status": "PERHAPS"}, "PERHAPS"),
        ({"sale_id": ""}, "sale_id"),
        ({"sale_id": "s" * 1_001}, "maxLength"),
        ({"sale_id": "ß" * 501}, "sale_id is longer than 1000 bytes"),
        ({"payment_id": "ß" * 129}, "payment_id is longer than 256 bytes"),
        ({"confirmed_at": "2026-11-02T12:00:00"}, "pattern"),
        ({"confirmed_at": "2026-11-02T24:00:00Z"}, "pattern"),
        ({"confirmed_at": "2026-02-30T12:00:00Z"}, "2026-02-30"),
        ({"confirmed_at": "1899-12-31T23:59:59Z"}, "between"),
        ({"confirmed_at": "9999-12-31T23:59:59-14:00"}, "between"),
        ({"confirmed_at": "0000-01-01T00:00:00Z"}, "0000"),
    ],
)
def test_a_bad_record_is_set_aside_with_its_reason_and_the_others_are_kept(
    server: Server, change: dict[str, str], reason: str
) -> None:
    server.gives(Reply(envelope.page([entry(1), entry(2, **change), entry(3)], "3", False)))
    page = ask(server)
    assert [found.payment_id for found in page.good] == ["p1", "p3"]
    (bad,) = page.bad
    assert bad.index == 1
    assert reason in bad.reason
    assert b"confirmation" in bad.xml
    assert page.next_cursor == "3"


def test_a_record_without_a_field_or_with_one_too_many_is_bad(server: Server) -> None:
    lacks = GOOD.replace(b"<p:currency>EUR</p:currency>", b"", 1)
    more = lacks.replace(b"<p:payment_id>p2", b"<p:extra/><p:payment_id>p2")
    server.gives(Reply(more))
    page = ask(server)
    assert [(bad.index, page.good) for bad in page.bad] == [(0, []), (1, [])]


LAUGHS = '<!ENTITY l0 "ha">' + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    ("declarations", "entity"),
    [
        ('<!ENTITY e SYSTEM "{file}">', "e"),
        ('<!ENTITY e SYSTEM "{address}">', "e"),
        ('<!ENTITY % p SYSTEM "{address}"> %p;', "amp"),
        (LAUGHS, "l9"),
    ],
    ids=["file", "address", "parameter", "a billion laughs"],
)
def test_an_entity_is_never_expanded_and_what_it_names_is_never_opened(
    server: Server, tmp_path: Path, declarations: str, entity: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush")
    named = declarations.format(file=secret.as_uri(), address=server.address)
    server.gives(Reply(with_dtd(named, entity)))
    started = time.monotonic()
    with pytest.raises(Untrusted, match="DTD") as refused:
        ask(server)
    assert time.monotonic() - started < 2
    assert "hush" not in str(refused.value)
    assert server.gets == []


@pytest.mark.parametrize(
    ("mark", "hostile"),
    [
        ('<xs:simpleType name="Cursor">', '<xs:import namespace="urn:x" schemaLocation="{}"/>'),
        ('<xs:simpleType name="Cursor">', '<xs:include schemaLocation="{}"/>'),
        ("<wsdl:types>", '<wsdl:import namespace="urn:x" location="{}"/>'),
    ],
)
def test_a_wsdl_that_imports_is_refused_and_nothing_is_fetched(
    server: Server, tmp_path: Path, mark: str, hostile: str
) -> None:
    for target in (server.address, "/etc/hostname", "file:///etc/hostname"):
        wsdl = tmp_path / "hostile.wsdl"
        wsdl.write_text(WSDL.read_text().replace(mark, hostile.format(target) + mark))
        with pytest.raises(Untrusted, match="names another document"):
            PaymentService(server.settings(), wsdl=wsdl)
    assert server.gets == []


def test_a_schema_that_an_answer_names_is_not_opened(server: Server) -> None:
    hint = (
        f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="urn:x {server.address}"'
    )
    server.gives(Reply(GOOD.replace(b"<p:confirmation>", f"<p:confirmation {hint}>".encode(), 1)))
    with pytest.raises(Untrusted, match="schema of its own"):
        ask(server)
    assert server.gets == []


def test_an_answer_without_an_end_is_read_to_the_limit_only(server: Server) -> None:
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n")
        while True:
            handler.wfile.write(b"<a/>" * 16_384)
            sent += 4 * 16_384

    server.gives(Reply(write=endless))
    with pytest.raises(Untrusted, match="larger than 1000000 bytes"):
        ask(server, Limits(answer_bytes=1_000_000))
    # What the sockets hold on both sides comes on top.
    assert sent < 20_000_000


def test_a_tree_that_is_too_deep_is_refused(server: Server) -> None:
    deep = b"<a>" * 100_000 + b"</a>" * 100_000
    server.gives(Reply(GOOD.replace(b"<p:confirmation>", deep + b"<p:confirmation>", 1)))
    with pytest.raises(ElectroRedError):
        ask(server)


def _drips_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.05)


def _drips_body(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n")
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.05)


@pytest.mark.parametrize("drips", [_drips_headers, _drips_body])
def test_a_server_that_drips_is_left_when_the_time_is_over(
    server: Server, drips: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    server.gives(Reply(write=drips))
    started = time.monotonic()
    with pytest.raises(Unavailable, match="within 1 s"):
        ask(server, Limits(total_seconds=1))
    assert time.monotonic() - started < 3


def test_a_name_that_is_not_resolved_is_left_when_the_time_is_over(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = server.settings(soap_wsdl="http://payments.example/", soap_hosts="payments.example")
    service = PaymentService(settings, Limits(total_seconds=0.5))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: time.sleep(3))
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"within 0\.5 s"):
        service.page("", 10)
    assert time.monotonic() - started < 2
    # Python waits for other threads at its end.
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "soap")
    assert any(thread.name == "soap" for thread in threading.enumerate())


def test_a_server_that_says_nothing_is_left_after_the_read_limit(server: Server) -> None:
    server.gives(Reply(write=lambda _handler: time.sleep(2)))
    with pytest.raises(Unavailable, match="ReadTimeout"):
        ask(server, Limits(read_seconds=0.5))


def test_a_redirect_is_not_followed(server: Server) -> None:
    with serving() as elsewhere:
        server.gives(Reply(status=307, headers={"Location": elsewhere.address}))
        with pytest.raises(Untrusted, match="redirects"):
            ask(server)
        assert elsewhere.posts == []
        assert elsewhere.gets == []


def test_only_hosts_of_the_allow_list_are_asked(server: Server) -> None:
    with pytest.raises(Untrusted, match=r"127\.0\.0\.1 is not among the hosts"):
        PaymentService(server.settings(soap_hosts="payments.example"))
    with pytest.raises(Untrusted, match="without a user"):
        PaymentService(server.settings(soap_wsdl=f"http://me:mine@127.0.0.1:{server.port}/"))
    with pytest.raises(Untrusted, match="http:// or https://"):
        PaymentService(server.settings(soap_wsdl="file:///etc/hostname"))
    assert server.posts == []


def test_the_address_may_be_the_one_that_the_wsdl_is_known_by(server: Server) -> None:
    server.gives(Reply(GOOD))
    settings = server.settings(soap_wsdl=f"{server.address}?wsdl")
    assert PaymentService(settings).page("", 10).next_cursor == "2"


def test_the_environment_sends_us_nowhere_else(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "")
        server.gives(Reply(GOOD))
        assert ask(server).next_cursor == "2"
        assert proxy.posts == []


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        *(
            (Reply(b"<html>", status, {"Content-Type": "text/html"}), f"HTTP {status}")
            for status in (500, 502, 503, 504, 429, 408)
        ),
        (Reply(b"<error/>", 500), "without a fault"),
        (Reply(HALF), "no whole XML"),
        (Reply(HALF, headers=XML | {"Content-Length": str(len(GOOD))}), "RemoteProtocolError"),
    ],
)
def test_a_server_that_is_busy_or_broken_may_be_asked_again(server: Server, reply: Reply, words: str) -> None:
    server.gives(reply)
    with pytest.raises(Unavailable, match=words):
        ask(server)


def test_nobody_there_may_be_asked_again() -> None:
    (port,) = ports.free(1)
    with pytest.raises(Unavailable, match="ConnectError"):
        ask(Server(f"http://127.0.0.1:{port}/", port))


THOUSAND = envelope.page([entry(1, amount="1000.00"), entry(2)], "2", False)
LATIN = {"Content-Type": "text/xml; charset=iso-8859-1"}
PACKED = XML | {"Content-Encoding": "gzip"}
MTOM = {"Content-Type": 'multipart/related; type="application/xop+xml"; boundary=b'}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(status=404), "HTTP 404"),
        (Reply(status=401), "HTTP 401"),
        (Reply(b"hello", headers={"Content-Type": "text/html"}), "no XML"),
        (Reply(b"<a/>"), "no page|does not match the WSDL"),
        (Reply(envelope.page([], "", False).replace(b"<p:more>false</p:more>", b"")), "more"),
        # What could be read as two.
        (Reply(THOUSAND.replace(b">s1<", ">sü<".encode()), headers=LATIN), "in UTF-8 but in iso-8859-1"),
        (Reply(b"--b\r\n\r\n" + THOUSAND + b"\r\n--b--", headers=MTOM), "no XML but multipart/related"),
        (Reply(THOUSAND.replace(b"</soap:Body>", b"</soap:Body><soap:Body/>")), "one body"),
        (Reply(THOUSAND, headers=PACKED), "packed"),
        (Reply(gzip.compress(b" " * 10_000_000), headers=PACKED), "packed"),
        # A DTD that hides.
        *((Reply(in_encoding(name)), "UTF-8") for name in ("utf-16", "utf-16-le", "utf-32", "utf-7")),
    ],
)
def test_what_must_not_be_read_is_not_asked_for_again(server: Server, reply: Reply, words: str) -> None:
    server.gives(reply)
    with pytest.raises(Untrusted, match=words):
        ask(server)
