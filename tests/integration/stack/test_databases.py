"""The rights of roles in a database, on a server."""

from __future__ import annotations

from contextlib import closing
from uuid import uuid4

import psycopg2.errors
import pytest

from stack import databases
from stack.embedded import Embedded
from stack.postgres import connect


def test_the_reader_reads_dagsters_tables_made_before_and_after_and_changes_none(stack: Embedded) -> None:
    name = f"dagster_{uuid4().hex[:12]}"
    server = databases.create_database(stack.postgres(), name, owner=databases.DAGSTER_ROLE)
    try:
        with closing(connect(stack.postgres(name, databases.DAGSTER_ROLE))) as dagster:
            dagster.cursor().execute("create table before (n integer)")
            # As at each start, of a platform that is older than this right as well.
            databases.provision_dagster(server)
            databases.provision_dagster(server)
            dagster.cursor().execute("create table after (n integer)")
        with closing(connect(stack.postgres(name, databases.READER))) as reader, reader.cursor() as cursor:
            for table in ("before", "after"):
                cursor.execute(f"select count(*) from {table}")
                for change in (
                    f"insert into {table} values (1)",
                    f"update {table} set n = 1",
                    f"delete from {table}",
                    f"truncate {table}",
                ):
                    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                        cursor.execute(change)
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute("create table mine (n integer)")
    finally:
        databases.drop_database(stack.postgres(), name)
