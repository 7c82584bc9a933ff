"""Alembic's entry: migrates over the connection that `contracts.migrate` holds the lock with."""

from __future__ import annotations

from alembic import context

from contracts.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
