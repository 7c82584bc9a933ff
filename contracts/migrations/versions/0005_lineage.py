"""What the lineage events say of each job last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.Text(collation="C")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "lineage_jobs",
        sa.Column("namespace", ID, nullable=False),
        sa.Column("name", ID, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("event_at", MOMENT, nullable=False),
        sa.Column("generation", sa.Text, comment="`<pipeline>.gN` that it works for; null: for all"),
        sa.Column("facets", JSONB, nullable=False, comment="of job and run"),
        sa.Column("inputs", JSONB, nullable=False, comment="datasets with their facets"),
        sa.Column("outputs", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name"),
    )
    op.create_table(
        "lineage_positions",
        sa.Column("topic_id", sa.Text, primary_key=True, comment="a topic made anew has another"),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("lineage_positions")
    op.drop_table("lineage_jobs")
