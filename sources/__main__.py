"""`python -m sources SOURCE`: one process per source, from the outside world into the log."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from contracts.settings import (
    CsvSettings,
    KafkaSettings,
    ResultsDbSettings,
    SalesDbSettings,
    SoapSettings,
    from_environment,
)
from contracts.topics import DEAD_LETTERS, PAYMENT_CONFIRMATIONS, SALES_EVENTS, SOURCE_POSITIONS
from kafka_client.errors import ElectroRedError
from lineage.emitter import ProgressCell, open_emitter
from observability import logs, metrics
from sources import lineage as lineage_of
from sources.postgres.capture import Capture
from sources.postgres.writer import Topics

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
    kafka, sales = from_environment(KafkaSettings), from_environment(SalesDbSettings)
    capture = Capture(kafka, sales, Topics(SALES_EVENTS, SOURCE_POSITIONS, DEAD_LETTERS))
    try:
        with (
            open_emitter("capture", kafka, sales) as lineage,
            lineage.run(partial(lineage_of.capture, sales.sales_table), capture.report),
            ThreadPoolExecutor(1, "capture") as thread,
        ):
            # In a thread, because a call to the database that waits would keep the main thread from handling a signal.
            thread.submit(capture.run, stop).result()
    except ElectroRedError as error:
        logs.get(__name__).error("stopped", reason=str(error))
        raise SystemExit(1) from error


soap = typer.Typer(no_args_is_help=True)
app.add_typer(soap, name="soap", help="Payment confirmations of a SOAP service.")


@soap.command("poll")
def soap_poll(
    begin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="CURSOR",
            help="Read again what stands behind this cursor; '' is the beginning. What comes again counts once.",
        ),
    ] = None,
    set_aside: Annotated[
        bool,
        typer.Option("--set-aside", help="Take pages of which most records are bad; these are dead letters."),
    ] = False,
) -> None:
    """Read everything that the payment service confirmed since the last poll, and end."""
    # Here: change capture, in the same program, needs no SOAP library (20 MiB).
    from sources.soap import poll as payments

    logs.configure("sources-soap")
    topics = payments.Topics(PAYMENT_CONFIRMATIONS, SOURCE_POSITIONS, DEAD_LETTERS)
    kafka, service, progress = from_environment(KafkaSettings), from_environment(SoapSettings), ProgressCell()
    try:
        with (
            open_emitter("sources soap", kafka, service) as lineage,
            lineage.run(lineage_of.soap, progress),
        ):
            done = payments.poll(
                kafka, service, topics, begin=begin, set_aside=set_aside, on_progress=progress.set
            )
    except ElectroRedError as error:
        logs.get(__name__).error("the poll ended", reason=str(error))
        raise SystemExit(1) from error
    passed_over = f", passed over: {', '.join(sorted(done.passed_over))}" if done.passed_over else ""
    typer.echo(
        f"{done.pages} pages behind the cursor {done.cursor_before!r}: {done.confirmations} confirmations, "
        f"{done.dead} dead letters{passed_over}; the next poll goes on behind {done.cursor_after!r}"
    )


csv = typer.Typer(no_args_is_help=True)
app.add_typer(csv, name="csv", help="Files of sales in the inbox.")
# pandas and polars take seconds to import, and change capture needs neither: hence the imports within.


@contextmanager
def _one_line() -> Iterator[None]:
    """Print an expected error as one line, without a traceback."""
    try:
        yield
    except ElectroRedError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


@csv.command("take")
def csv_take() -> None:
    """Take every file that waits in the inbox and is complete, and end."""
    from sources.csv.ingest import take

    logs.configure("sources-csv")
    kafka, results = from_environment(KafkaSettings), from_environment(ResultsDbSettings)
    inbox, progress = from_environment(CsvSettings), ProgressCell()
    with (
        _one_line(),
        open_emitter("sources csv", kafka, results, inbox) as lineage,
        lineage.run(lineage_of.csv, progress),
    ):
        done = take(kafka, results, inbox, on_progress=progress.set)
    for file in done.files:
        counts = file.counts
        typer.echo(
            f"{file.name}: {file.outcome}{f' ({file.reason})' if file.reason else ''}: {counts.rows} rows, "
            f"{counts.accepted} accepted, {counts.duplicates} duplicate, {counts.corrections} corrections, "
            f"{counts.reversals} reversals, {counts.rejected} rejected"
        )


@csv.command("check")
def csv_check(file: Path) -> None:
    """Show what would become of a file, without taking it; exit code 1 if any row would be refused."""
    from sources.csv.dry_run import check

    with _one_line():
        result = check(from_environment(ResultsDbSettings), from_environment(CsvSettings), file)
    if result.unrecognised:
        typer.echo(result.unrecognised)
    if result.unfinished:
        typer.echo(f"{result.name} would wait: {result.unfinished}")
    if result.reason:
        typer.echo(f"{result.name}: no CSV of sales: {result.reason}")
    for refusal in result.refusals:
        typer.echo(f"{result.name}:{refusal.line}: {refusal.reason}")
    counts = result.counts
    if counts.rejected > len(result.refusals):
        typer.echo(f"… and {counts.rejected - len(result.refusals)} more")
    for reason, count in sorted(result.reasons.items(), key=lambda one: -one[1]):
        typer.echo(f"{count} rows: {reason}")
    if result.ignored_columns:
        typer.echo(f"columns that are passed over: {', '.join(result.ignored_columns)}")
    typer.echo(
        f"{counts.rows} rows: {counts.accepted} would be accepted ({counts.corrections} as corrections), "
        f"{counts.duplicates} are duplicates, {counts.reversals} take a sale back, {counts.rejected} would be refused"
    )
    raise typer.Exit(0 if result.is_clean else 1)


@csv.command("retract")
def csv_retract(file: str) -> None:
    """Take a file back: FILE is a path to its content, the name it was taken under, or its hash."""
    from sources.csv.retract import retract

    logs.configure("sources-csv")
    kafka, results = from_environment(KafkaSettings), from_environment(ResultsDbSettings)
    inbox, progress = from_environment(CsvSettings), ProgressCell()
    with (
        _one_line(),
        open_emitter("sources csv retract", kafka, results, inbox) as lineage,
        lineage.run(lineage_of.retraction, progress),
    ):
        done = retract(kafka, results, inbox, file, on_progress=progress.set)
    amount = ", ".join(f"{value} {currency}" for currency, value in done.amount.items()) or "0"
    typer.echo(
        f"{done.name}: {done.taken_back} sales taken back ({amount}); {done.left} left, corrected or taken back since"
    )


if __name__ == "__main__":
    app()
