"""`python -m streaming`: worker, sink and publisher, and their set-up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from contracts.settings import KafkaSettings, ResultsDbSettings, WindowSettings, from_environment
from kafka_client.errors import ElectroRedError
from lineage.emitter import open_emitter
from observability import logs, metrics
from streaming.engine.pipeline import Parameters
from streaming.generations import catalog, lost_schemas
from streaming.generations.instance_id import free_instance_id
from streaming.pipelines import CURRENT, PIPELINES
from streaming.replay import commands

app = typer.Typer(
    no_args_is_help=True, help="From the log to totals, and from totals to results and public topics."
)
app.add_typer(commands.app)
_log = logs.get(__name__)


@app.command()
def init() -> None:
    """Create the first generation of every pipeline that has none: topics, schemas, row, pointer."""
    logs.configure("init")
    windows = from_environment(WindowSettings)
    results = create_engine(_results_url(), poolclass=NullPool)
    for name, version in CURRENT.items():
        pipeline = PIPELINES[name, version]
        calendar = (
            windows.salesman_calendar if pipeline.calendar == "30-days" else pipeline.calendar or "1-day"
        )
        parameters = Parameters(windows.time_zone, windows.grace, calendar)
        generation = catalog.create(
            from_environment(KafkaSettings),
            results,
            pipeline,
            parameters,
            reason="first generation",
            created_by="init",
        )
        _log.info("generation is there", generation=str(generation), version=generation.version)


@app.command()
def schemas(
    restore: Annotated[bool, typer.Option("--restore", help="Put back what is not in the registry.")] = False,
) -> None:
    """Which schema ids the topics have; and put their schemas back in a registry that lost them."""
    logs.configure("schemas")
    kafka = from_environment(KafkaSettings)
    known = lost_schemas.ids_in_topics(
        kafka, lost_schemas.live_schemas(create_engine(_results_url(), poolclass=NullPool))
    )
    wrong = lost_schemas.wrong(kafka, known)
    if restore and wrong:
        try:
            lost_schemas.put_back(kafka, wrong)
        except LookupError as error:
            raise SystemExit(f"error: {error}: put these back by its own means") from error
        wrong = lost_schemas.wrong(kafka, known)
    for one in known:
        typer.echo(f"{one.schema_id:>6} {one.subject}{'  not in the registry' if one in wrong else ''}")
    if wrong:
        raise SystemExit(
            "error: the registry gives other schemas, or none, to these ids; if others have taken them, empty its "
            "database first, then `python -m streaming schemas --restore`, and only then start anything"
        )


@app.command()
def work(
    pipeline: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    slot: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Instance id of this worker, if its supervisor numbers them; else a free one is taken.",
        ),
    ] = None,
    state_dir: Annotated[
        Path,
        typer.Option(envvar="ELECTRORED_STATE_DIR", help="The platform's state; stores are in its `state/`."),
    ] = Path(".electrored"),
) -> None:
    """Combine and merge of the live generations of a pipeline: active, candidate, standby."""
    from streaming.generations import supervisor

    state_dir /= "state"
    with nullcontext(str(slot)) if slot is not None else free_instance_id(state_dir, pipeline) as instance_id:
        logs.configure(f"work {pipeline} {instance_id}")
        stop = _stopped_by_signal()
        with _one_line_errors():
            metrics.serve()
            kafka, results = _settings()
            with open_emitter(f"work {pipeline} {instance_id}", kafka, results) as lineage:
                supervisor.run(kafka, results, pipeline, instance_id, state_dir, stop, lineage)


@app.command()
def sink() -> None:
    """State topics of all pipelines → rows of the results database."""
    from streaming.sink import postgres

    logs.configure("sink")
    stop = _stopped_by_signal()
    metrics.serve()
    with _one_line_errors():
        kafka, results = _settings()
        with open_emitter("sink", kafka, results) as lineage:
            postgres.run(kafka, results, stop, lineage)


@app.command()
def publish() -> None:
    """State of the active generations → public topics."""
    from streaming.sink import publisher

    logs.configure("publish")
    stop = _stopped_by_signal()
    metrics.serve()
    with _one_line_errors():
        kafka, results = _settings()
        with open_emitter("publish", kafka, results) as lineage:
            publisher.run(kafka, results, stop, lineage)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """An ElectroRedError ends the process with one line; anything else keeps its traceback."""
    try:
        yield
    except ElectroRedError as error:
        _log.error("stopped", reason=str(error))
        raise SystemExit(1) from error


def _stopped_by_signal() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _settings() -> tuple[KafkaSettings, ResultsDbSettings]:
    return from_environment(KafkaSettings), from_environment(ResultsDbSettings)


def _results_url() -> str:
    return from_environment(ResultsDbSettings).results_db_url.get_secret_value()


if __name__ == "__main__":
    app()
