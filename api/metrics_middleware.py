"""Duration of requests, by route and status."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import Histogram
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_SECONDS = Histogram(
    "electrored_api_request_seconds",
    "Time to answer a request",
    ["route", "status"],
    # The target is 20 ms for 99 of 100, so the buckets are dense around it.
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 1, 2.5),
)

# Statuses of errors of the server: see `problems`.
_ERRORS_OF_OURS = (500, 503)


def expect(routes: Iterable[BaseRoute]) -> None:
    """Count the errors of these routes from 0 on, or an increase would not count the first."""
    for route in routes:
        if isinstance(route, Route):
            for status in _ERRORS_OF_OURS:
                REQUEST_SECONDS.labels(route.path, status)


class Measured:
    """ASGI middleware that times every request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            # The route's template: an unknown path must not become a series.
            route = getattr(scope.get("route"), "path", "none")
            REQUEST_SECONDS.labels(route, status).observe(time.perf_counter() - began)
