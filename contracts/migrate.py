"""Migrates the results database to the newest schema; safe when several processes do it at once."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

READER = "electrored_reader"
# Key of the advisory lock: arbitrary, but always this one.
_LOCK = 0x656C6563
# A server that accepts a connection and sends nothing would be waited for without end.
CONNECT_SECONDS = 10


class NewerDatabase(RuntimeError):
    """The database was migrated by a later release, whose migrations this one does not have."""


def upgrade(url: str) -> None:
    """Run the missing migrations in one transaction, under a lock: all or none.

    `url` is that of the role that will own the tables. The role `electrored_reader` may read them,
    if it exists. Raises NewerDatabase, with nothing changed.
    """
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS})
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config = Config()
        config.set_main_option("script_location", "contracts:migrations")
        config.attributes["connection"] = connection
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if unknown := set(MigrationContext.configure(connection).get_current_heads()) - known:
            raise NewerDatabase(
                f"the results database is at migration {', '.join(sorted(unknown))}, which this release does not have: "
                f"its newest is {max(known)}. Run `contracts setup` of the release that migrated it, or leave it out: "
                "the processes of this release run on that database as it is"
            )
        command.upgrade(config, "head")
        _grant(connection)


def _grant(connection: Connection) -> None:
    if connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": READER}):
        connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {READER}"))
        connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER}"))
