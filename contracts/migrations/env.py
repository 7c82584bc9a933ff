"""Alembic's entry: runs the migrations on the connection with `contracts.migrate`'s lock, or prints their SQL."""

from __future__ import annotations

from alembic import context

from contracts.tables import metadata

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=metadata)
else:
    context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
