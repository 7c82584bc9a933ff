"""Which runs of each job go on, and how far each is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ID = sa.Text(collation="C")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "lineage_runs",
        sa.Column("namespace", ID, nullable=False),
        sa.Column("name", ID, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("is_open", sa.Boolean, nullable=False),
        sa.Column("event_at", MOMENT, nullable=False, comment="of the last event"),
        sa.Column("watermark", MOMENT),
        sa.PrimaryKeyConstraint("namespace", "name", "run_id"),
    )


def downgrade() -> None:
    op.drop_table("lineage_runs")
