"""`python -m streaming generations|replay|diff|promote|rollback|retire`."""

from __future__ import annotations

import getpass
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from confluent_kafka import KafkaException
from rich.console import Console
from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from contracts import tables
from contracts.differences import changes, csv_of
from contracts.settings import KafkaSettings, ResultsDbSettings, from_environment
from kafka_client.errors import ElectroRedError
from lineage.emitter import ProgressCell, open_emitter
from observability import logs
from observability.supervision import reason as first_line
from streaming import lineage as lineage_of
from streaming.generations.catalog import load
from streaming.pipelines import PIPELINES
from streaming.replay import build, display, local_executor, promotion, retirement
from streaming.replay.barrier import hold_at_barrier
from streaming.replay.catch_up import caught_up
from streaming.replay.difference import Difference
from streaming.replay.errors import RequestRefused
from streaming.replay.promotion import Promoted
from streaming.replay.request import Range, Request
from streaming.replay.request import grace as grace_given
from streaming.results_db import connect

# A candidate reads what came in while it was built; `diff` right after `replay` waits for that.
CAUGHT_UP_SECONDS = 60.0
# A terminal's page; `--csv` has all of them.
ROWS_SHOWN = 20

app = typer.Typer()

Pipeline = Annotated[str, typer.Argument(help="Name of the pipeline.")]
Number = Annotated[int, typer.Argument(help="Number of the generation.", metavar="GENERATION")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
By = Annotated[str, typer.Option("--approved-by", help="Who decides it.", default_factory=getpass.getuser)]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Share = Annotated[
    float,
    typer.Option(
        min=0.05,
        max=1.0,
        envvar="ELECTRORED_REPLAY_SHARE",
        help="How much of the time a slice works; it sleeps for the remainder, in favour of live traffic.",
    ),
]
StateDir = Annotated[Path, typer.Option(envvar="ELECTRORED_STATE_DIR", help="The platform's state.")]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write every row of it to this file.")]


@app.command()
def generations(
    pipeline: Annotated[str | None, typer.Argument(help="Only this pipeline.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the generations of all pipelines, retired ones included."""
    with _one_line_errors():
        table = tables.generations
        # The rules of a zone are for machines.
        shown = (column for column in table.columns if column.name != "zone_rules")
        wanted = select(*shown).order_by(table.c.pipeline, table.c.number.desc())
        if pipeline is not None:
            wanted = wanted.where(table.c.pipeline == pipeline)
        with _results().connect() as connection:
            rows = connection.execute(wanted).all()
        if pipeline is not None and not rows:
            raise RequestRefused(f"there is no generation of {pipeline}")
        if as_json:
            _json([row._asdict() for row in rows])
        else:
            _console().print(display.generations(rows))


@app.command()
def replay(
    pipeline: Pipeline,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the generation.")],
    by: Annotated[str, typer.Option("--by", help="Who asks for it.", default_factory=getpass.getuser)],
    version: Annotated[int | None, typer.Option(help="Of the pipeline; the newest if left out.")] = None,
    grace: Annotated[
        float | None, typer.Option(help="Seconds until a fact is late. Not with a range.")
    ] = None,
    calendar: Annotated[
        str | None, typer.Option(help="1-day, 30-days or calendar-month. Not with a range.")
    ] = None,
    time_zone: Annotated[str | None, typer.Option(help="Of the windows' bounds. Not with a range.")] = None,
    start: Annotated[
        datetime | None, typer.Option(help="Range: nothing may differ in windows before it.")
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option(
            help="Range: nor in windows from it on. Both by the clocks of the active generation's zone."
        ),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Slices at a time.")] = 1,
    share: Share = build.SHARE,
    state_dir: StateDir = Path(".electrored"),
) -> None:
    """Compute a pipeline again from the whole log, beside the live one, for `diff` and `promote`.

    Killed at any moment, the same command resumes it. The result is not served before `promote`.
    """
    with _one_line_errors():
        if (start is None) != (end is None):
            raise RequestRefused("a range has a start and an end")
        windows = None if start is None or end is None else Range(start, end)
        request = Request(
            pipeline,
            reason,
            by,
            version=version,
            grace=grace_given(grace),
            calendar=calendar,
            time_zone=time_zone,
            range=windows,
        )
        kafka, results, console = from_environment(KafkaSettings), _results(), _console()
        generation = build.begin(kafka, results, request)
        if generation.state == "building":
            console.print(f"building {generation}")
            events = local_executor.run(
                generation,
                state_dir / "state",
                processes=processes,
                share=share,
                console=Console(stderr=True),
            )
            build.finish(results, generation)
            console.print(f"{events:,} events")
        console.print(
            f"{generation} is a candidate; `electrored diff {pipeline} {generation.number}` compares it"
        )


@app.command(hidden=True, name="slice")
def run_slice(
    pipeline: Pipeline,
    generation: Number,
    step: str,
    partition: int,
    share: Share = build.SHARE,
    state_dir: StateDir = Path(".electrored/state"),
    parent: Annotated[
        int | None, typer.Option(help="Process id; the slice ends when that process does.")
    ] = None,
) -> None:
    """Run one slice of a replay, and print its progress as JSON lines."""
    with _one_line_errors():
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        if parent is not None:
            local_executor.end_with(parent, stop)
        build.be_nice()
        kafka, results = from_environment(KafkaSettings), _results()
        ref = load(results, pipeline, generation)
        piece, progress = build.find_slice(ref, step, partition), ProgressCell()

        def report(done: build.Done) -> None:
            progress.set(done.report(piece.step, piece.partition))
            typer.echo(json.dumps(asdict(done)))

        job = partial(lineage_of.replay, PIPELINES[ref.pipeline, ref.version], ref.number)
        with open_emitter(f"replay {ref} {piece}", kafka) as lineage, lineage.run(job, progress):
            build.run_slice(kafka, results, ref, piece, state_dir, share=share, stop=stop, on_progress=report)


@app.command()
def diff(
    pipeline: Pipeline,
    generation: Number,
    csv: Csv = None,
    rows: Annotated[int, typer.Option(min=0, help="How many rows to show.")] = ROWS_SHOWN,
    as_json: AsJson = False,
) -> None:
    """Compare a generation with the active one, at one position of their input, and show what differs."""
    with _one_line_errors():
        results = _results()
        difference = _compared(from_environment(KafkaSettings), results, pipeline, generation)
        if csv is not None:
            _write(results, difference, csv)
        if as_json:
            _json(asdict(difference))
        else:
            _show(results, difference, rows)


@app.command()
def promote(
    pipeline: Pipeline,
    generation: Number,
    approved_by: By,
    fingerprint: Annotated[
        str | None, typer.Option(help="Of the difference that was reviewed; without it, it is shown now.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Serve a generation: the API at once, the public topic within seconds."""
    with _one_line_errors():
        kafka, results = from_environment(KafkaSettings), _results()
        if fingerprint is None:
            difference = _compared(kafka, results, pipeline, generation)
            _show(results, difference, ROWS_SHOWN)
            if not yes:
                typer.confirm(f"Promote g{generation} of {pipeline}?", abort=True)
            fingerprint = difference.fingerprint
        _done(
            kafka,
            results,
            promotion.promote(
                kafka,
                results,
                pipeline,
                generation,
                fingerprint=fingerprint,
                approved_by=approved_by,
                hold=hold_at_barrier,
            ),
        )


@app.command()
def rollback(
    pipeline: Pipeline,
    approved_by: By,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the generation that is left.")],
    generation: Annotated[
        int | None,
        typer.Argument(help="The standby's number, so that asking twice does not go back and forth."),
    ] = None,
    yes: Yes = False,
) -> None:
    """Serve the standby again, which is the generation that was active before."""
    with _one_line_errors():
        kafka, results = from_environment(KafkaSettings), _results()
        if not yes:
            typer.confirm(f"Go back to the standby of {pipeline}?", abort=True)
        _done(
            kafka,
            results,
            promotion.rollback(
                kafka,
                results,
                pipeline,
                generation,
                reason=reason,
                approved_by=approved_by,
                hold=hold_at_barrier,
            ),
        )


@app.command()
def retire(pipeline: Pipeline, generation: Number, yes: Yes = False) -> None:
    """Retire a generation: delete its rows, topics and positions."""
    with _one_line_errors():
        results = _results()
        state = retirement.may_be_retired(results, pipeline, generation)
        if not yes:
            meant = ", the one that a rollback would bring back" if state == "standby" else ""
            typer.confirm(
                f"Delete g{generation} of {pipeline} ({state}{meant})? It can only be computed again.",
                abort=True,
            )
        done = retirement.retire(from_environment(KafkaSettings), results, pipeline, generation)
        _console().print(
            f"{pipeline} g{generation} is retired: {done.rows:,} rows and {done.topics} topics deleted"
        )


def _compared(kafka: KafkaSettings, results: Engine, pipeline: str, number: int) -> Difference:
    """The difference, as soon as the generation has caught up."""
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    return caught_up(
        kafka,
        results,
        pipeline,
        number,
        hold=hold_at_barrier,
        seconds=CAUGHT_UP_SECONDS,
        waiting=lambda reason: console.print(f"waiting: {reason}"),
    )


def _done(kafka: KafkaSettings, results: Engine, done: Promoted) -> None:
    _console().print(
        f"{done.pipeline} g{done.generation} is active (promotion {done.promotion_number}); g{done.former} is standby"
    )
    for number in done.replaced:
        retirement.retire(kafka, results, done.pipeline, number)
        _console().print(f"{done.pipeline} g{number}, the former standby, is retired")


def _show(results: Engine, difference: Difference, most: int) -> None:
    with results.connect() as connection:
        _console().print(
            display.difference(difference, changes(connection, difference.shape, difference.id, most))
        )


def _write(results: Engine, difference: Difference, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file, results.connect() as connection:
        file.writelines(csv_of(connection, difference.shape, difference.id))


def _json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _console() -> Console:
    """As wide as the terminal; without one as wide as tables need."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


def _results() -> Engine:
    return connect(from_environment(ResultsDbSettings), "replay", NullPool)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Logs and one-line errors to stderr, so that only the result is on stdout."""
    logs.configure("generations")
    try:
        yield
    except RequestRefused as error:
        _fail(f"refused: {error}", error)
    except ElectroRedError as error:
        _fail(f"error: {error}", error)
    except (DBAPIError, KafkaException) as error:
        _fail(f"error: {first_line(error)}", error)


def _fail(line: str, error: Exception) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(line)
    raise typer.Exit(1) from error
