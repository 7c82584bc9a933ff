"""`python -m sources SOURCE`: one process per source, from the outside world into the log."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import typer

from contracts.settings import KafkaSettings, SalesDbSettings, SoapSettings, from_environment
from contracts.topics import DEAD_LETTERS, PAYMENT_CONFIRMATIONS, SALES_EVENTS, SOURCE_POSITIONS
from observability import logs, metrics
from sources.errors import SourceError
from sources.postgres.capture import Capture
from sources.postgres.writer import Topics
from sources.soap import poll as payments

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Sources: the outside world → sales-events, every fact exactly once."""


@app.command()
def postgres() -> None:
    """Change capture: the sales table of PostgreSQL, its history first, then every change as it is committed."""
    logs.configure("sources-postgres")
    metrics.serve()
    stop = threading.Event()

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        Capture(
            from_environment(KafkaSettings),
            from_environment(SalesDbSettings),
            Topics(SALES_EVENTS, SOURCE_POSITIONS, DEAD_LETTERS),
        ).run(stop)
    except SourceError as error:
        logs.get(__name__).error("stopped", reason=str(error))
        raise SystemExit(1) from error


soap = typer.Typer(no_args_is_help=True)
app.add_typer(soap, name="soap", help="Payment confirmations of a SOAP service.")


@soap.command("poll")
def soap_poll() -> None:
    """Read everything that the payment service confirmed since the last poll, and end."""
    logs.configure("sources-soap")
    topics = payments.Topics(PAYMENT_CONFIRMATIONS, SOURCE_POSITIONS, DEAD_LETTERS)
    try:
        payments.poll(from_environment(KafkaSettings), from_environment(SoapSettings), topics)
    except SourceError as error:
        logs.get(__name__).error("the poll ended", reason=str(error))
        raise SystemExit(1) from error


if __name__ == "__main__":
    app()
