"""`python -m api`: serve until SIGTERM."""

from __future__ import annotations

import signal

import typer
import uvicorn

from api.main import create_app
from contracts.settings import ApiSettings, from_environment
from observability import logs, metrics


def serve() -> None:
    """Serve the API from the results database. Settings come from ELECTRORED_* variables."""
    logs.configure("api")
    metrics.serve()
    settings = from_environment(ApiSettings)
    # uvicorn shuts down gracefully and then raises the signal again; SIGTERM is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    # Requests are counted in /metrics; an access log would cost as much as the response.
    uvicorn.run(
        create_app(settings),
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
    )


if __name__ == "__main__":
    typer.run(serve)
