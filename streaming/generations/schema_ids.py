"""Ids that the registry ever gave to our input schemas, kept in the results database.

By them a worker distinguishes an own value whose id the registry lost from one of a foreign registry.
"""

from __future__ import annotations

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.tables import schema_ids
from kafka_client.registry import Registry
from streaming.engine.pipeline import Pipeline


def keep_inputs(kafka: KafkaSettings, results: Engine, pipeline: Pipeline) -> None:
    """Register the schemas of the pipeline's inputs and keep their ids."""
    registry = Registry(kafka)
    for topic in (each.source for each in pipeline.inputs):
        keep(results, topic.subject, registry.register(topic.subject, load(topic.schema)))


def keep(results: Engine, subject: str, schema_id: int | None) -> frozenset[int]:
    """Keep the id that the subject's schema has now, if any; returns all that it ever had."""
    of = schema_ids.c
    with results.begin() as connection:
        if schema_id is not None:
            row = {"subject": subject, "id": schema_id}
            connection.execute(insert(schema_ids).values(row).on_conflict_do_nothing())
        return frozenset(connection.scalars(select(of.id).where(of.subject == subject)))
