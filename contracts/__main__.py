"""`python -m contracts setup|acls`: what every room finds ready before it starts, and who may do what in Kafka."""

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

app = typer.Typer(no_args_is_help=True, help="The nouns every room shares.")


@app.command()
def setup() -> None:
    """Migrate the results database, make the public topics, register their schemas; may run any number of times.

    Topics that are not kept as they have to be are put right, those of generations too.
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
    """Every topic that results are computed from or kept in; ends the process where a person has to decide."""
    engine = create_engine(results, poolclass=NullPool)
    of = generations.c
    with engine.connect() as connection:
        live = connection.execute(select(of.pipeline, of.number).where(of.state.in_(LIVE))).all()
    internal = [topic for row in live for topic in GenerationTopics(row.pipeline, row.number).all]
    try:
        # One that is gone is for its worker to say, which knows what that means.
        there = topic_settings.existing(kafka, internal)
        for found in topic_settings.mend(kafka, (*PUBLIC, *there)):
            typer.echo(f"put right: {found}", err=True)
        lost = topic_settings.losses(admin(kafka), PUBLIC)
    except topic_settings.NotKept as error:
        raise SystemExit(f"error: {error}") from error
    except KafkaException as error:
        raise SystemExit(
            f"error: Kafka refuses to show or set how topics are kept ({error.args[0].str()}): `electrored-setup` has "
            "the rights that this needs (`python -m contracts acls`)"
        ) from error
    if lost and not live:
        raise SystemExit(f"error: {topic_settings.explained(lost)}")
    for loss in lost:
        # Generations that are there have counted what is gone: they stay right, and no other can be made.
        typer.echo(f"warning: {loss}; no generation can be computed from it any more", err=True)


@app.command("acls")
def kafka_acls(
    create: Annotated[
        bool, typer.Option("--create", help="Give the rights, as the user of the settings, who may do that.")
    ] = False,
    principal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROCESS=PRINCIPAL",
            help="Whom Kafka takes a process for, if it is not User:electrored-PROCESS; once for each process.",
        ),
    ] = None,
) -> None:
    """What each process may do in Kafka: lines for Kafka's own tool, or the rights themselves."""
    kafka = from_environment(KafkaSettings)
    try:
        named = acls.principals(principal or ())
    except ValueError as error:
        raise SystemExit(f"error: --principal {error}") from error
    if create:
        typer.echo(f"{acls.create(kafka, named)} rights are given")
        return
    typer.echo(
        "# admin.properties: security.protocol, sasl.mechanism and sasl.jaas.config of one who may give rights"
    )
    for line in acls.commands(kafka.kafka_bootstrap, named):
        typer.echo(line)


if __name__ == "__main__":
    app()
