"""`python -m contracts setup|acls`: what every room finds ready before it starts, and who may do what in Kafka."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Annotated

import typer

from contracts import acls
from contracts.kafka import ensure_topics
from contracts.migrate import NewerDatabase, upgrade
from contracts.registry import Registry
from contracts.settings import KafkaSettings, LineageSettings, ResultsDbSettings, from_environment
from contracts.topics import OPENLINEAGE_EVENTS, PUBLIC

app = typer.Typer(no_args_is_help=True, help="The nouns every room shares.")


@app.command()
def setup() -> None:
    """Migrate the results database, make the public topics, register their schemas; may run any number of times."""
    kafka = from_environment(KafkaSettings)
    try:
        upgrade(from_environment(ResultsDbSettings).results_db_url.get_secret_value())
    except NewerDatabase as error:
        raise SystemExit(f"error: {error}") from error
    kept_ms = from_environment(LineageSettings).lineage_retention // timedelta(milliseconds=1)
    lineage = replace(OPENLINEAGE_EVENTS, config={**OPENLINEAGE_EVENTS.config, "retention.ms": str(kept_ms)})
    ensure_topics(kafka, (*PUBLIC, lineage))
    Registry(kafka).register_public()


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
