"""Failures on demand: what a partner's server does on its bad days."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from simulators.payments import envelope
from simulators.payments.envelope import SoapFault

XML = "text/xml; charset=utf-8"
# An answer that is slow comes in so many pieces.
PIECES = 20


class Failure(BaseModel):
    """What goes wrong, how often, and how long it takes where that matters."""

    mode: Literal["none", "fault", "expired", "error", "timeout", "slow", "truncated", "bad-record"]
    # None: until it is switched off.
    times: int | None = Field(default=1, ge=1)
    seconds: float = Field(default=120.0, ge=0, le=3_600)


class Failures:
    """The failure that is on."""

    def __init__(self) -> None:
        self._now = Failure(mode="none")

    def set(self, failure: Failure) -> None:
        self._now = failure

    def take(self) -> Failure:
        """The failure of the next answer; one that is used up is over."""
        failure = self._now
        if failure.times is not None and failure.mode != "none":
            left = failure.times - 1
            self._now = failure.model_copy(update={"times": left}) if left else Failure(mode="none")
        return failure


async def answered(page: bytes, failure: Failure) -> Response:
    """The whole answer as the failure leaves it. Raises SoapFault."""
    match failure.mode:
        case "fault":
            raise SoapFault("soap:Server", "the ledger of payments is closed for the night")
        case "expired":
            raise SoapFault("wsse:FailedAuthentication", "the credentials have expired")
        case "error":
            return PlainTextResponse("Internal Server Error", 500)
        case "timeout":
            await asyncio.sleep(failure.seconds)
        case "slow":
            return StreamingResponse(_dripping(page, failure.seconds), media_type=XML)
        case "truncated":
            return Response(page[: len(page) // 2], media_type=XML)
        case "bad-record":
            return Response(page.replace(b"<p:amount>", b"<p:amount>about ", 1), media_type=XML)
    return Response(page, media_type=XML)


async def _dripping(page: bytes, seconds: float) -> AsyncIterator[bytes]:
    size = len(page) // PIECES + 1
    for start in range(0, len(page), size):
        await asyncio.sleep(seconds / PIECES)
        yield page[start : start + size]


def faulted(error: SoapFault) -> Response:
    """A fault, as SOAP 1.1 over HTTP has it."""
    return Response(envelope.fault(error), 500, media_type=XML)
