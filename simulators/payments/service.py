"""The payment service over HTTP: `/payments` serves SOAP and its WSDL, `/failure` switches failures on."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response

from contracts.settings import SalesDbSettings, SoapCredentials
from contracts.soap import WSDL
from simulators.payments import envelope
from simulators.payments.envelope import SoapFault
from simulators.payments.failures import XML, Failure, Failures, answered, faulted
from simulators.payments.journal import Journal, UnknownCursor
from simulators.payments.payment_scheduler import PaymentScheduler


def utc_now() -> datetime:
    return datetime.now(UTC)


def service(
    sales: SalesDbSettings, credentials: SoapCredentials, journal_file: Path, seed: int, delay: timedelta
) -> FastAPI:
    """The service; its scheduler runs as long as the server does."""
    journal = Journal(journal_file)
    scheduler = PaymentScheduler(sales.sales_db_url.get_secret_value(), journal, seed, delay, utc_now)
    stop = threading.Event()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        thread = threading.Thread(target=scheduler.run, args=(stop,), name="scheduler")
        thread.start()
        yield
        stop.set()
        thread.join()
        journal.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None)
    failures = Failures()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.put("/failure")
    async def fail(failure: Failure) -> Failure:
        failures.set(failure)
        return failure

    @app.get("/payments")
    async def wsdl(request: Request) -> Response:
        address = str(request.url.replace(query=None)).encode()
        return Response(WSDL.read_bytes().replace(b"http://127.0.0.1:8080/payments", address), media_type=XML)

    @app.post("/payments")
    async def payments(request: Request) -> Response:
        try:
            asked = envelope.read(
                await _body(request),
                credentials.soap_username,
                credentials.soap_password.get_secret_value(),
                utc_now,
            )
            page = envelope.page(*journal.page(asked.cursor, asked.limit))
            return await answered(page, failures.take())
        except UnknownCursor as error:
            return faulted(SoapFault("soap:Client", str(error)))
        except SoapFault as error:
            return faulted(error)

    return app


async def _body(request: Request) -> bytes:
    """The request's body, up to the first piece beyond the limit."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > envelope.REQUEST_BYTES:
            break
    return bytes(body)
