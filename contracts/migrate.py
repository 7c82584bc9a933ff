"""Brings the results database to the newest shape; safe when several processes do it at once."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

READER = "electrored_reader"
# Any number will do as long as it is always this one: it names "the migration" among the database's locks.
_LOCK = 0x656C6563
# A server that takes a connection and says nothing would be waited for without end.
CONNECT_SECONDS = 10


def upgrade(url: str) -> None:
    """Run what is missing, in one transaction, under a lock: all of it happened or nothing did.

    `url` is that of the role that will own the tables. The role `electrored_reader` may read them,
    if it exists.
    """
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS})
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config = Config()
        config.set_main_option("script_location", "contracts:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        _grant(connection)


def _grant(connection: Connection) -> None:
    if connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": READER}):
        connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {READER}"))
        connection.execute(text(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER}"))
