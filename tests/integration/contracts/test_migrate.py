"""The results database: migrations create what the tables declare, once, by any process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import NullPool

from contracts.migrate import NewerDatabase, upgrade
from contracts.migrations import versions
from contracts.settings import ResultsDbSettings
from contracts.tables import metadata, sql_type
from lineage.views import views
from stack import databases
from stack.embedded import Embedded

VERSIONS = Path(versions.__file__).parent


@pytest.fixture
def bare(stack: Embedded) -> Iterator[str]:
    """The URL of a database with nothing in it, owned by the writer."""
    name = f"bare_{uuid4().hex[:12]}"
    url = databases.create_database(stack.postgres(), name, owner=databases.WRITER)
    databases.provision_results(url)
    yield stack.postgres(name, databases.WRITER).render_as_string(hide_password=False)
    databases.drop_database(stack.postgres(), name)


def test_several_at_once_migrate_once(bare: str) -> None:
    errors: list[BaseException] = []

    def migrate() -> None:
        try:
            upgrade(bare)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with create_engine(bare, poolclass=NullPool).connect() as connection:
        newest = max(path.name[:4] for path in VERSIONS.glob("[0-9]*.py"))
        assert list(connection.scalars(text("SELECT version_num FROM alembic_version"))) == [newest]


def test_a_database_of_a_later_release_is_refused_and_left_as_it_is(bare: str) -> None:
    upgrade(bare)
    engine = create_engine(bare, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerDatabase, match="at migration 9999, which this release does not have"):
        upgrade(bare)
    with engine.connect() as connection:
        assert list(connection.scalars(text("SELECT version_num FROM alembic_version"))) == ["9999"]


def test_tables_and_views_have_the_types_that_lineage_tells(results_db: ResultsDbSettings) -> None:
    told = {
        name: {column.name: column.type or "" for column in view.output.schema}
        for name, view in views().items()
    }
    for table in metadata.tables.values():
        told[table.name] = {column.name: sql_type(column) for column in table.columns}
    engine = create_engine(results_db.results_db_url.get_secret_value(), poolclass=NullPool)
    with engine.connect() as connection:
        found: dict[str, dict[str, str]] = {}
        for relation, column, kind in connection.execute(
            text(
                "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) "
                "FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
                "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v') "
                "AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> 'alembic_version'"
            )
        ):
            found.setdefault(relation, {})[column] = kind
    assert found == told


def test_migrations_make_what_the_tables_say(results_db: ResultsDbSettings) -> None:
    engine = create_engine(results_db.results_db_url.get_secret_value(), poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_the_reader_reads_everything_and_writes_nothing(
    stack: Embedded, results_db: ResultsDbSettings
) -> None:
    database = create_engine(results_db.results_db_url.get_secret_value()).url.database or ""
    reader = create_engine(stack.postgres(database, databases.READER), poolclass=NullPool)
    views = ["top_sales_by_city", "top_salesman_by_country", "active_freshness", "enriched_sales"]
    with reader.connect() as connection:
        for name in [*metadata.tables, *views]:
            assert connection.execute(text(f"SELECT * FROM {name}")).all() == []
    for name in metadata.tables:
        with reader.connect() as connection, pytest.raises(ProgrammingError, match="permission denied"):
            connection.execute(text(f"DELETE FROM {name}"))
