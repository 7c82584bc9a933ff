"""Databases and roles of the embedded PostgreSQL: each process has the rights that it needs, and no more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import psycopg2.extensions
from psycopg2 import sql
from sqlalchemy import URL

from stack.postgres import connect

SALES, RESULTS, DAGSTER, REGISTRY = "sales", "results", "dagster", "registry"

SHOP = "electrored_shop"  # the application that sells: reads and writes public.sales
CAPTURE = "electrored_capture"  # change capture: replicates and reads public.sales
WATCHER = "electrored_watcher"  # connects to the sales database and looks at its slots; reads no table
WRITER = "electrored_results"  # owns the results database: migrations, workers, sink
READER = "electrored_reader"  # reads results: API, publisher; and the observer's queries to Dagster
DAGSTER_ROLE = "electrored_dagster"  # owns Dagster's database
REGISTRY_ROLE = "electrored_registry"  # owns the registry's database
SALES_ROLES = (SHOP, CAPTURE, WATCHER)
RESULTS_ROLES = (WRITER, READER, DAGSTER_ROLE, REGISTRY_ROLE)
ROLES = (*SALES_ROLES, *RESULTS_ROLES)

PUBLICATION = "electrored_sales"

# The table that the company's own tools write too. FULL, because a reversal needs the whole old row.
SALES_TABLE = """
create table if not exists public.sales (
  sale_id text primary key default gen_random_uuid()::text,
  sold_at timestamptz not null,
  city text not null,
  country text not null,
  salesman_id text not null,
  salesman_name text not null,
  product text not null,
  quantity integer not null,
  amount numeric(18,4) not null,
  currency char(3) not null
);
alter table public.sales replica identity full;
"""


def provision(server: URL, passwords: Mapping[str, str]) -> None:
    """Bring roles, databases and the sales table to what they should be; idempotent.

    `server` is the superuser's URL.
    """
    provision_sales_server(server, passwords)
    provision_results_server(server, passwords)


def provision_sales_server(server: URL, passwords: Mapping[str, str]) -> None:
    """Provision the company's server: the shop's database, and a role that captures its changes."""
    with _cursor(server) as cursor:
        for role in SALES_ROLES:
            _ensure_role(cursor, role, passwords[role])
        cursor.execute(sql.SQL("alter role {} replication").format(sql.Identifier(CAPTURE)))
        _ensure_database(cursor, SALES, None, SALES_ROLES)
    provision_sales(server.set(database=SALES))


def provision_results_server(server: URL, passwords: Mapping[str, str]) -> None:
    """Provision the platform's server: results, Dagster's runs, the registry's schemas."""
    with _cursor(server) as cursor:
        for role in RESULTS_ROLES:
            _ensure_role(cursor, role, passwords[role])
        _ensure_database(cursor, RESULTS, WRITER, (READER,))
        _ensure_database(cursor, DAGSTER, DAGSTER_ROLE, (READER,))
        _ensure_database(cursor, REGISTRY, REGISTRY_ROLE, ())
    provision_results(server.set(database=RESULTS))
    provision_dagster(server.set(database=DAGSTER))


def provision_sales(database: URL) -> None:
    """The sales table, its grants and its publication, in the database of the superuser's URL."""
    with _cursor(database) as cursor:
        cursor.execute(SALES_TABLE)
        cursor.execute(f"grant select, insert, update, delete on public.sales to {SHOP}")
        cursor.execute(f"grant select on public.sales to {CAPTURE}")
        cursor.execute("select 1 from pg_publication where pubname = %s", (PUBLICATION,))
        if cursor.fetchone() is None:
            cursor.execute(f"create publication {PUBLICATION} for table public.sales")


def provision_results(database: URL) -> None:
    """Grant the reader the tables that the writer's migrations will create."""
    with _cursor(database) as cursor:
        cursor.execute(
            f"alter default privileges for role {WRITER} in schema public grant select on tables to {READER}"
        )


def provision_dagster(database: URL) -> None:
    """Grant the reader the tables that Dagster's migrations created and will create."""
    with _cursor(database) as cursor:
        cursor.execute(f"grant select on all tables in schema public to {READER}")
        cursor.execute(
            f"alter default privileges for role {DAGSTER_ROLE} in schema public grant select on tables to {READER}"
        )


def create_database(server: URL, name: str, owner: str | None = None, template: str | None = None) -> URL:
    """Create a database, for tests; returns the superuser's URL to it."""
    with _cursor(server) as cursor:
        statement = sql.SQL("create database {}").format(sql.Identifier(name))
        if owner is not None:
            statement += sql.SQL(" owner {}").format(sql.Identifier(owner))
        if template is not None:
            statement += sql.SQL(" template {}").format(sql.Identifier(template))
        cursor.execute(statement)
    return server.set(database=name)


def drop_database(server: URL, name: str) -> None:
    """Drop a database with its replication slots and connections."""
    with _cursor(server) as cursor:
        cursor.execute(
            "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots "
            "where database = %s and active_pid is not null",
            (name,),
        )
        cursor.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s",
            (name,),
        )
        cursor.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def _ensure_role(cursor: psycopg2.extensions.cursor, role: str, password: str) -> None:
    cursor.execute("select 1 from pg_roles where rolname = %s", (role,))
    verb = "create" if cursor.fetchone() is None else "alter"
    cursor.execute(
        sql.SQL(f"{verb} role {{}} login password {{}}").format(sql.Identifier(role), sql.Literal(password))
    )


def _ensure_database(
    cursor: psycopg2.extensions.cursor, name: str, owner: str | None, guests: Iterable[str]
) -> None:
    cursor.execute("select 1 from pg_database where datname = %s", (name,))
    identifier = sql.Identifier(name)
    if cursor.fetchone() is None:
        owned = sql.SQL(" owner {}").format(sql.Identifier(owner)) if owner else sql.SQL("")
        cursor.execute(sql.SQL("create database {}").format(identifier) + owned)
    cursor.execute(sql.SQL("revoke all on database {} from public").format(identifier))
    for guest in guests:
        cursor.execute(
            sql.SQL("grant connect on database {} to {}").format(identifier, sql.Identifier(guest))
        )


class _cursor:
    """A cursor of a connection of its own, closed at the end."""

    def __init__(self, url: URL) -> None:
        self._connection = connect(url)

    def __enter__(self) -> psycopg2.extensions.cursor:
        return self._connection.cursor()

    def __exit__(self, *_: object) -> None:
        self._connection.close()
