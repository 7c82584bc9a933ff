"""`python -m simulators history|sales|csv|payments`: what the outside world does, reproducible by seed."""

from __future__ import annotations

import logging
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated

import psycopg2
import typer

from contracts.settings import CsvSettings, SalesDbSettings, SoapCredentials, from_environment
from simulators import csv_files as branch
from simulators import sales as world
from simulators.sales_writer import SalesWriter, run, utc_now

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
_log = logging.getLogger("simulators")

Seed = Annotated[
    int | None, typer.Option(help="The same seed and start give the same rows; random if left out.")
]
Moment = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S"])]


@app.command()
def history(
    days: Annotated[int, typer.Option(min=0, help="How far back it reaches; 0 does nothing.")] = 30,
    rows: Annotated[int, typer.Option(min=1, help="How many sales in all.")] = 6_000,
    seed: Seed = None,
    end: Moment = None,
) -> None:
    """Load past sales into an empty table, in one transaction, and end; a table with rows is left alone.

    Run it before change capture starts: rows that its snapshot finds are on time, later ones are late.
    """
    with _opened_writer(threading.Event()) as writer:
        end_at = _utc(end)
        seed = _chosen(seed)
        loaded = writer.load(world.history(seed, end_at - timedelta(days=days), end_at, rows)) if days else 0
        _log.info(
            "history of %d days: %d rows loaded, seed %d, end %s", days, loaded, seed, end_at.isoformat()
        )


@app.command()
def sales(
    rate: Annotated[float, typer.Option(min=0.001, max=20_000, help="Changes a second.")] = 0.2,
    update_share: Annotated[float, typer.Option(min=0, max=0.5, help="Share of corrections.")] = 0.02,
    delete_share: Annotated[float, typer.Option(min=0, max=0.5, help="Share of cancellations.")] = 0.01,
    seed: Seed = None,
    start: Moment = None,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many changes.")] = None,
) -> None:
    """Sell until stopped: one sale every 5 seconds by default, some of them corrected or cancelled later."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with _opened_writer(stop) as writer:
        start_at = _utc(start)
        seed = _chosen(seed)
        _log.info("selling: %g changes a second, seed %d, start %s", rate, seed, start_at.isoformat())
        changes = islice(world.live(seed, start_at, rate, update_share, delete_share), limit)
        _log.info("stopped after %d changes", run(writer, changes, stop))


@app.command()
def payments(
    journal: Annotated[
        Path, typer.Option(help="File of the list of confirmations; created if it is missing.")
    ],
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8080,
    # Loopback alone: any client that reaches it can switch its failures on.
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    delay_seconds: Annotated[float, typer.Option(min=0, help="Usual time from sale to payment.")] = 120.0,
    seed: Annotated[int, typer.Option(help="Decides which sales are paid, and how.")] = 0,
) -> None:
    """Serve payment confirmations of the sales in the database over SOAP, until stopped."""
    # Imported here, so that the other commands start without them.
    import uvicorn

    from simulators.payments.service import service

    sales_db, credentials = from_environment(SalesDbSettings), from_environment(SoapCredentials)
    payments_app = service(sales_db, credentials, journal, seed, timedelta(seconds=delay_seconds))
    # uvicorn stops in order and then raises the signal again; a requested stop is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.run(payments_app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=2)


@app.command("csv")
def csv_files(
    every_seconds: Annotated[float, typer.Option(min=0.01, help="Between two files.")] = 10.0,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a file.")] = 50,
    seed: Seed = None,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many files.")] = None,
) -> None:
    """Drop files of sales into the inbox until stopped; some rows come again, some of them corrected."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    inbox = from_environment(CsvSettings).csv_inbox
    seed = _chosen(seed)
    _log.info("dropping files of %d rows into %s, seed %d", rows, inbox, seed)
    _log.info("stopped after %d files", branch.run(inbox, seed, rows, every_seconds, stop, limit))


@contextmanager
def _opened_writer(stop: threading.Event) -> Iterator[SalesWriter]:
    """The writer for the length of a command; a database that stays away is one line and exit code 1."""
    writer = SalesWriter(from_environment(SalesDbSettings).sales_db_url.get_secret_value(), stop)
    try:
        yield writer
    except psycopg2.Error as error:
        # Stopped while the database was away: no failure.
        if not stop.is_set():
            _log.error("cannot write to the sales database: %s", str(error).strip())
            raise typer.Exit(1) from error
    finally:
        writer.close()


def _chosen(seed: int | None) -> int:
    # Logged, so that any run can be repeated.
    return secrets.randbits(32) if seed is None else seed


def _utc(at: datetime | None) -> datetime:
    return utc_now() if at is None else at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-8s %(name)s: %(message)s")
    app(prog_name="python -m simulators")
