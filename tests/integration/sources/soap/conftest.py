"""A payment service that answers what a test says, over real HTTP, and the settings to ask it with."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from contracts.settings import SoapSettings
from simulators.payments import envelope

Entry = tuple[str, str, str, str, str, str]
XML = {"Content-Type": "text/xml; charset=utf-8"}


def entry(number: int, **changes: str) -> Entry:
    """A confirmation as the service has it, values in the order of the schema."""
    values = {
        "payment_id": f"p{number}",
        "sale_id": f"s{number}",
        "amount": f"{number}.5000",
        "currency": "EUR",
        "status": "CONFIRMED",
        "confirmed_at": "2026-11-02T12:00:00+00:00",
    }
    return tuple((values | changes).values())  # type: ignore[return-value]


@dataclass
class Reply:
    """What is answered. `write` overrides the rest: it gets the raw socket's file."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: dict(XML))
    write: Callable[[BaseHTTPRequestHandler], None] | None = None


@dataclass
class Server:
    """Answers each POST by `answer(cursor, limit)`; counts whatever else is asked."""

    address: str
    port: int
    answer: Callable[[str, int], Reply] = lambda _cursor, _limit: Reply()
    posts: list[tuple[str, int]] = field(default_factory=list)
    gets: list[str] = field(default_factory=list)

    def settings(self, **changes: object) -> SoapSettings:
        return SoapSettings.model_validate(
            {"soap_wsdl": self.address, "soap_username": "me", "soap_password": "mine"} | changes
        )

    def gives(self, reply: Reply) -> None:
        self.answer = lambda _cursor, _limit: reply

    def has(self, entries: Sequence[Entry]) -> None:
        """Serve a list of entries, with cursors like the real service's."""

        def page(cursor: str, limit: int) -> Reply:
            start = int(cursor or 0)
            found = entries[start : start + limit]
            end = start + len(found)
            return Reply(envelope.page(found, str(end) if end else "", end < len(entries)))

        self.answer = page


@contextmanager
def serving() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked = [re.search(rb"cursor>([^<]*)</", body), re.search(rb"limit>(\d+)</", body)]
            cursor, limit = (found[1].decode() if found else "" for found in asked)
            server.posts.append((cursor, int(limit)))
            reply = server.answer(cursor, int(limit))
            try:
                if reply.write is not None:
                    reply.write(self)
                    return
                self.send_response(reply.status)
                for name, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)
            except OSError:
                # The client had enough: what several tests are about.
                self.close_connection = True

        def do_GET(self) -> None:
            server.gets.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"secret")

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = http.server_address[1]
    server = Server(f"http://127.0.0.1:{port}/payments", port)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found
