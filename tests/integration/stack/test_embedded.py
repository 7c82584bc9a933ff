"""The embedded stack that every other integration test stands on."""

from __future__ import annotations

import psycopg2
import pytest
from sqlalchemy import create_engine, text

from contracts.settings import SalesDbSettings
from contracts.topics import SALES_EVENTS
from kafka_client.clients import admin, describe_topics, ensure_topics
from kafka_client.registry import Registry
from stack import databases
from stack.embedded import Embedded
from stack.postgres import connect


def test_topics_can_be_made_and_none_appears_by_itself(stack: Embedded) -> None:
    ensure_topics(stack.kafka, [SALES_EVENTS])
    assert describe_topics(stack.kafka, [SALES_EVENTS.name])[SALES_EVENTS.name][1] == SALES_EVENTS.partitions
    client = admin(stack.kafka)
    client.list_topics("nobody-made-this", timeout=10)
    assert "nobody-made-this" not in client.list_topics(timeout=10).topics


def test_the_registry_keeps_schemas(stack: Embedded) -> None:
    schema = {"type": "record", "name": "Probe", "fields": [{"name": "at", "type": "long"}]}
    registry = Registry(stack.kafka)
    schema_id = registry.register("probe-value", schema)
    assert Registry(stack.kafka).schema(schema_id) == schema


def test_the_log_of_postgresql_can_be_decoded(stack: Embedded, sales_db: SalesDbSettings) -> None:
    with create_engine(sales_db.sales_db_url.get_secret_value()).connect() as connection:
        assert connection.scalar(text("show wal_level")) == "logical"
        identity = connection.scalar(text("select relreplident::text from pg_class where relname = 'sales'"))
        assert identity == "f"


@pytest.mark.parametrize(
    ("role", "database", "statement"),
    [
        (databases.READER, databases.SALES, None),
        (databases.SHOP, databases.RESULTS, None),
        (databases.CAPTURE, databases.RESULTS, None),
        (databases.CAPTURE, databases.SALES, "delete from public.sales"),
        (databases.SHOP, databases.SALES, "truncate public.sales"),
        (databases.SHOP, databases.SALES, "create table mine (i int)"),
        (databases.READER, databases.RESULTS, "create table mine (i int)"),
        (databases.READER, databases.REGISTRY, None),
    ],
)
def test_a_role_may_not_do_what_its_work_does_not_need(
    stack: Embedded, role: str, database: str, statement: str | None
) -> None:
    url = stack.postgres(database, role)
    if statement is None:
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            connect(url)
        return
    connection = connect(url)
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        connection.cursor().execute(statement)
    connection.close()


def test_the_reader_reads_what_the_writer_makes(stack: Embedded) -> None:
    writer = connect(stack.postgres(databases.RESULTS, databases.WRITER))
    writer.cursor().execute("create table probe as select 1 as one")
    reader = connect(stack.postgres(databases.RESULTS, databases.READER))
    cursor = reader.cursor()
    cursor.execute("select one from probe")
    assert cursor.fetchall() == [(1,)]
    writer.cursor().execute("drop table probe")
    reader.close()
    writer.close()


def test_a_wrong_password_is_refused(stack: Embedded) -> None:
    url = stack.postgres(databases.RESULTS, databases.READER).set(password="wrong")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        connect(url)
