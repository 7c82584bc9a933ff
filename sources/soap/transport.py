"""HTTP transport of the SOAP client, with limits on bytes, seconds and hosts. All of zeep's requests go through it.

zeep's own transport reads a response of any size, follows redirects, waits for a server that sends a byte now and
then, decompresses, and opens any address or file that a document names.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from lxml import etree
from zeep.exceptions import ExternalReferenceForbidden

from sources.soap.errors import Unavailable, Untrusted

# Status of a proxy or server that is busy, starting or failing; a SOAP fault is a 500 too, with an envelope.
PASSING = (408, 425, 429, 500, 502, 503, 504)
_XML = ("text/xml", "application/xml")


class _DaemonThreads(ThreadPoolExecutor):
    """A daemon thread for each call: the process can end while a name is still being resolved."""

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call(*arguments, **options))
                except BaseException as error:
                    future.set_exception(error)

        threading.Thread(target=run, name="soap", daemon=True).start()
        return future


@dataclass(frozen=True)
class Limits:
    """Limits of one response."""

    connect_seconds: float = 5.0
    # Between two pieces of an answer.
    read_seconds: float = 30.0
    # For everything, from the name's address to the last byte: a server that drips is ended by this one.
    total_seconds: float = 60.0
    # A page of the largest allowed records is 10 MB; usual ones are far below 1 MB.
    answer_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """What is read of an HTTP response; `charset` is from its headers."""

    status_code: int
    charset: str | None
    content: bytes


class Transport:
    """Opens the shipped document and sends requests to one allowed address, nothing else."""

    def __init__(self, document: Path, address: str, hosts: tuple[str, ...], limits: Limits) -> None:
        """Raises Untrusted for an address that is not on the allow list."""
        self._document = str(document)
        self._address = _checked(address, hosts)
        self._limits = limits
        # Reading the certificates takes longer than a page.
        self._certificates = httpx.create_ssl_context(trust_env=False)

    def load(self, url: str) -> bytes:
        """The shipped document. Raises ExternalReferenceForbidden for everything that it may name."""
        if url != self._document:
            raise ExternalReferenceForbidden(url)
        return Path(url).read_bytes()

    def post_xml(self, address: str, envelope: etree._Element, headers: Mapping[str, str]) -> Answer:
        """Send a request and return the whole response. Raises Unavailable or Untrusted.

        In an event loop, whose deadline also ends a server that sends its headers byte by byte.
        """
        message = etree.tostring(envelope, xml_declaration=True, encoding="utf-8")
        # Not `asyncio.run`, which waits for a name that is still being resolved.
        loop = asyncio.new_event_loop()
        loop.set_default_executor(_DaemonThreads())
        try:
            return loop.run_until_complete(self._ask(message, headers))
        except TimeoutError as error:
            raise Unavailable(f"no whole answer within {self._limits.total_seconds:g} s") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        finally:
            loop.close()

    async def _ask(self, message: bytes, headers: Mapping[str, str]) -> Answer:
        limits = self._limits
        # No proxies, no .netrc, no cookies: only the configured address. A client for each request, so that a late
        # response is never read as that of the next.
        client = httpx.AsyncClient(
            verify=self._certificates,
            timeout=httpx.Timeout(limits.read_seconds, connect=limits.connect_seconds),
            trust_env=False,
            follow_redirects=False,
        )
        # Unpacked: a limit on packed bytes would be none.
        asked = {**headers, "Accept-Encoding": "identity"}
        body = bytearray()
        async with (
            asyncio.timeout(limits.total_seconds),
            client,
            client.stream("POST", self._address, content=message, headers=asked) as response,
        ):
            _judge(response)
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > limits.answer_bytes:
                    raise Untrusted(f"the answer is larger than {limits.answer_bytes} bytes")
        return Answer(response.status_code, response.charset_encoding, bytes(body))


def _checked(address: str, hosts: tuple[str, ...]) -> str:
    """The service's address without `?wsdl`. Raises Untrusted."""
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise Untrusted(f"the payment service's address is none: {error}") from error
    if url.scheme not in ("http", "https") or url.userinfo:
        raise Untrusted("the payment service's address is to begin with http:// or https://, without a user")
    if url.host not in hosts:
        raise Untrusted(
            f"{url.host} is not among the hosts allowed by ELECTRORED_SOAP_HOSTS: {', '.join(hosts)}"
        )
    return str(url.copy_with(query=None, fragment=None))


def _judge(response: httpx.Response) -> None:
    """Raise by status and headers, before a byte of the body is read."""
    status, headers = response.status_code, response.headers
    if 300 <= status < 400:
        raise Untrusted(
            f"the service redirects (HTTP {status} to {headers.get('Location', 'nowhere')}), which is not followed"
        )
    is_xml = headers.get("Content-Type", "").split(";")[0].strip().lower() in _XML
    if status != 200 and not (status == 500 and is_xml):
        if status in PASSING:
            raise Unavailable(f"HTTP {status}")
        raise Untrusted(f"HTTP {status}")
    if not is_xml:
        raise Untrusted(f"the answer is no XML but {headers.get('Content-Type', 'of no type')}")
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Untrusted(f"the answer is packed ({headers['Content-Encoding']}), which was not asked for")
