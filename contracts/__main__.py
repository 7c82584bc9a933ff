"""`python -m contracts setup`: what every room finds ready before it starts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import typer

from contracts.kafka import ensure_topics
from contracts.migrate import upgrade
from contracts.registry import Registry
from contracts.settings import KafkaSettings, LineageSettings, ResultsDbSettings, from_environment
from contracts.topics import OPENLINEAGE_EVENTS, PUBLIC

app = typer.Typer(no_args_is_help=True, help="The nouns every room shares.")


@app.callback()
def _named() -> None:
    """Keeps `setup` a command of its own although it is the only one."""


@app.command()
def setup() -> None:
    """Migrate the results database, make the public topics, register their schemas; may run any number of times."""
    kafka = from_environment(KafkaSettings)
    upgrade(from_environment(ResultsDbSettings).results_db_url.get_secret_value())
    kept_ms = from_environment(LineageSettings).lineage_retention // timedelta(milliseconds=1)
    lineage = replace(OPENLINEAGE_EVENTS, config={**OPENLINEAGE_EVENTS.config, "retention.ms": str(kept_ms)})
    ensure_topics(kafka, (*PUBLIC, lineage))
    Registry(kafka).register_public()


if __name__ == "__main__":
    app()
