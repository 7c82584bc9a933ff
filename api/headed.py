"""HEAD: the response to GET, without its body."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Key in the scope of a HEAD request.
_BODILESS = "electrored.head"


class Headed:
    """ASGI middleware: every route handles HEAD as GET, errors included, and no body is sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET", _BODILESS: True}, receive, without_body)


def is_head(scope: Any) -> bool:
    """Whether only the headers are sent: a route may skip an expensive body."""
    return bool(scope.get(_BODILESS))
