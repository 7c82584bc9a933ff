"""A payment service of a test's own, the simulator as a process, and polls of either."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from contracts.settings import SalesDbSettings, SoapSettings
from contracts.topics import Topic
from simulators.payments import envelope
from sources.position_store import SourceOffset
from sources.soap.poll import Result, Topics, poll
from stack.embedded import Embedded
from tests.support.kafka import committed_records
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 120.0
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
                # The client disconnected, as several tests expect.
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


@dataclass
class Polls:
    """Fresh topics, and what is in them."""

    stack: Embedded
    topics: Topics

    def poll(self, soap: SoapSettings, **options: Any) -> Result:
        return poll(self.stack.kafka, soap, self.topics, **options)

    def process(self, soap: SoapSettings, **more: str) -> subprocess.Popen[bytes]:
        """A poll as a process of its own, to be killed."""
        environment = os.environ | {
            "ELECTRORED_KAFKA_BOOTSTRAP": self.stack.kafka.kafka_bootstrap,
            "ELECTRORED_SCHEMA_REGISTRY_URL": self.stack.kafka.schema_registry_url,
            "ELECTRORED_SOAP_WSDL": soap.soap_wsdl,
            "ELECTRORED_SOAP_USERNAME": soap.soap_username,
            "ELECTRORED_SOAP_PASSWORD": soap.soap_password.get_secret_value(),
            "TEST_TOPICS": ",".join(
                (self.topics.confirmations.name, self.topics.positions.name, self.topics.dead_letters.name)
            ),
            **more,
        }
        return subprocess.Popen(
            [sys.executable, ROOT / "tests/integration/sources/soap/process.py"], cwd=ROOT, env=environment
        )

    def log(self, topic: Topic) -> list[tuple[bytes, Any]]:
        """Keys and values of everything that is committed now, partition by partition."""
        return committed_records(self.stack.kafka, topic)

    def confirmations(self) -> list[dict[str, Any]]:
        """In the order of their seq."""
        found = self.log(self.topics.confirmations)
        assert all(key.decode() == value["sale_id"] for key, value in found)
        return sorted((value for _, value in found), key=lambda value: value["seq"])

    def payment_ids(self) -> list[str]:
        return [found["payment_id"] for found in self.confirmations()]

    def position(self) -> SourceOffset:
        found = [value for key, value in self.log(self.topics.positions) if key == b"soap"]
        _, record = found[-1]
        return SourceOffset(record["next_seq"], record["frontier"], json.loads(record["detail"]))


@dataclass
class Service:
    """The simulated payment service as a process of its own."""

    sales: SalesDbSettings
    folder: Path
    port: int
    running: subprocess.Popen[bytes] | None = None

    def settings(self, **changes: object) -> SoapSettings:
        return SoapSettings.model_validate(
            {"soap_wsdl": f"{self.address}/payments", "soap_username": "me", "soap_password": "mine"}
            | changes
        )

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = os.environ | {
            "ELECTRORED_SALES_DB_URL": self.sales.sales_db_url.get_secret_value(),
            "ELECTRORED_SOAP_USERNAME": "me",
            "ELECTRORED_SOAP_PASSWORD": "mine",
        }
        arguments = ["--port", str(self.port), "--seed", "7", "--delay-seconds", "0"]
        journal = ["--journal", str(self.folder / "payments.sqlite3")]
        self.running = subprocess.Popen(
            [sys.executable, "-m", "simulators", "payments", *arguments, *journal], cwd=ROOT, env=environment
        )
        wait_until(lambda: self._is_ready())

    def _is_ready(self) -> bool:
        assert self.running is not None
        assert self.running.poll() is None, "the service ended"
        try:
            return httpx.get(f"{self.address}/health").is_success
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        assert self.running is not None
        self.running.kill()
        self.running.wait()

    def stop(self) -> int:
        assert self.running is not None
        self.running.terminate()
        return self.running.wait(DEADLINE_SECONDS)

    def fails(self, **failure: object) -> None:
        httpx.put(f"{self.address}/failure", json=failure).raise_for_status()
