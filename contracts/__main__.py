"""`python -m contracts setup|acls`: tables, topics and schemas of all processes, and their rights in Kafka."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Annotated

import typer
from confluent_kafka import KafkaException
from sqlalchemy import create_engine, select
from sqlalchemy.pool import NullPool

from contracts.migrate import NewerDatabase, upgrade
from contracts.settings import KafkaSettings, LineageSettings, ResultsDbSettings, from_environment
from contracts.tables import LIVE, generations
from contracts.topics import OPENLINEAGE_EVENTS, PUBLIC, GenerationTopics
from kafka_client import acls, topic_settings
from kafka_client.clients import admin, ensure_topics
from kafka_client.registry import Registry

app = typer.Typer(no_args_is_help=True, help="Tables, topics, schemas and Kafka rights.")


@app.command()
def setup() -> None:
    """Migrate the results database, create the public topics, register their schemas; idempotent.

    Corrects wrong topic settings, those of generations too.
    """
    kafka = from_environment(KafkaSettings)
    results = from_environment(ResultsDbSettings).results_db_url.get_secret_value()
    try:
        upgrade(results)
    except NewerDatabase as error:
        raise SystemExit(f"error: {error}") from error
    kept_ms = from_environment(LineageSettings).lineage_retention // timedelta(milliseconds=1)
    lineage = replace(OPENLINEAGE_EVENTS, config={**OPENLINEAGE_EVENTS.config, "retention.ms": str(kept_ms)})
    ensure_topics(kafka, (*PUBLIC, lineage))
    _keep(kafka, results)
    Registry(kafka).register_public()


def _keep(kafka: KafkaSettings, results: str) -> None:
    """Correct the settings of all topics of results; ends the process where a person has to decide."""
    engine = create_engine(results, poolclass=NullPool)
    of = generations.c
    with engine.connect() as connection:
        live = connection.execute(select(of.pipeline, of.number).where(of.state.in_(LIVE))).all()
    internal = [topic for row in live for topic in GenerationTopics(row.pipeline, row.number).all]
    try:
        # A missing one is reported by its worker, with the remedy.
        existing = topic_settings.existing(kafka, internal)
        for deviation in topic_settings.mend(kafka, (*PUBLIC, *existing)):
            typer.echo(f"put right: {deviation}", err=True)
        lost = topic_settings.losses(admin(kafka), PUBLIC)
    except topic_settings.NotKept as error:
        raise SystemExit(f"error: {error}") from error
    except KafkaException as error:
        raise SystemExit(
            f"error: Kafka refuses to read or alter topic settings ({error.args[0].str()}): run this as "
            "`electrored-setup`, which has the rights (`python -m contracts acls`)"
        ) from error
    if lost and not live:
        raise SystemExit(f"error: {topic_settings.explained(lost)}")
    for loss in lost:
        # Live generations have counted the lost records and stay correct; no new one can be computed.
        typer.echo(f"warning: {loss}; no generation can be computed from it any more", err=True)


@app.command("acls")
def kafka_acls(
    create: Annotated[
        bool, typer.Option("--create", help="Create the ACLs, as the user of the settings.")
    ] = False,
    principal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROCESS=PRINCIPAL",
            help="The principal of a process, if it is not User:electrored-PROCESS; once for each process.",
        ),
    ] = None,
) -> None:
    """The ACLs of each process: print them as commands of kafka-acls.sh, or create them."""
    kafka = from_environment(KafkaSettings)
    try:
        named = acls.principals(principal or ())
    except ValueError as error:
        raise SystemExit(f"error: --principal {error}") from error
    if create:
        typer.echo(f"{acls.create(kafka, named)} ACLs are in place")
        return
    typer.echo(
        "# admin.properties: security.protocol, sasl.mechanism and sasl.jaas.config of a user that may alter ACLs"
    )
    for line in acls.commands(kafka.kafka_bootstrap, named):
        typer.echo(line)


if __name__ == "__main__":
    app()
