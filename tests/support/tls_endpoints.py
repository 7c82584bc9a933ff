"""Proxies in front of servers: TLS for PostgreSQL and the registry."""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from stack.ports import LOOPBACK

# The eight bytes that ask a PostgreSQL server for TLS, as libpq sends them first.
_SSL_REQUEST = bytes.fromhex("0000000804d2162f")


class _Threads(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextmanager
def postgres(port: int, certificate: ssl.SSLContext) -> Iterator[int]:
    """Yield the port where connections have to be TLS; they are forwarded to the server at `port`."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            client: socket.socket = self.request
            if client.recv(len(_SSL_REQUEST), socket.MSG_WAITALL) != _SSL_REQUEST:
                # As a server with `hostssl` alone, which refuses plain connections.
                return
            client.sendall(b"S")
            with contextlib.suppress(OSError):
                secure = certificate.wrap_socket(client, server_side=True)
                with secure, socket.create_connection((LOOPBACK, port)) as server:
                    back = threading.Thread(target=_pump, args=(server, secure), daemon=True)
                    back.start()
                    _pump(secure, server)
                    back.join()

    with _serving(_Threads((LOOPBACK, 0), Handler)) as server:
        yield int(server.server_address[1])


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    # The other direction ends too: no database connection stays half open.
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def registry(url: str, certificate: ssl.SSLContext, user: str, password: str) -> Iterator[str]:
    """A company's proxy before its registry: TLS and basic authentication. Yields its address."""
    expected = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.headers.get("authorization") != expected:
                self._answer(401, b'{"error_code": 401, "message": "who are you?"}')
                return
            kind = self.headers.get("content-type", "application/json")
            asked = urllib.request.Request(
                url + self.path, body or None, {"content-type": kind}, method=self.command
            )
            try:
                with urllib.request.urlopen(asked, timeout=30) as found:
                    self._answer(found.status, found.read())
            except urllib.error.HTTPError as error:
                with error:
                    self._answer(error.code, error.read())

        do_GET = do_POST = do_PUT = do_DELETE = _forward

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silent: the process under test reports what went wrong."""

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    server.socket = certificate.wrap_socket(server.socket, server_side=True)
    with _serving(server):
        yield f"https://{LOOPBACK}:{server.server_port}"


@contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[socketserver.TCPServer]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
