"""Ids that the registry has ever given to our schemas of the inputs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Those of a log that is there already come when its workers start.
    op.create_table(
        "schema_ids",
        sa.Column("subject", sa.Text(collation="C"), nullable=False),
        sa.Column("id", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("subject", "id"),
    )


def downgrade() -> None:
    op.drop_table("schema_ids")
