"""How the service fails when it is told to: what a partner's server does on its bad days."""

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
    # None: until told otherwise.
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
        found = self._now
        if found.times is not None and found.mode != "none":
            left = found.times - 1
            self._now = found.model_copy(update={"times": left}) if left else Failure(mode="none")
        return found


async def answered(found: bytes, failure: Failure) -> Response:
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
            return StreamingResponse(_dripping(found, failure.seconds), media_type=XML)
        case "truncated":
            return Response(found[: len(found) // 2], media_type=XML)
        case "bad-record":
            return Response(found.replace(b"<p:amount>", b"<p:amount>about ", 1), media_type=XML)
    return Response(found, media_type=XML)


async def _dripping(found: bytes, seconds: float) -> AsyncIterator[bytes]:
    size = len(found) // PIECES + 1
    for start in range(0, len(found), size):
        await asyncio.sleep(seconds / PIECES)
        yield found[start : start + size]


def faulted(found: SoapFault) -> Response:
    """A fault, as SOAP 1.1 over HTTP has it."""
    return Response(envelope.fault(found), 500, media_type=XML)
