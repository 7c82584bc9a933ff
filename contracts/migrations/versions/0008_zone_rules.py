"""Generations keep the rules of their time zone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Those that are there take over what the machine knows on which a worker first starts with them.
    op.add_column(
        "generations",
        sa.Column(
            "zone_rules",
            sa.Text,
            comment="of its time zone, as contracts/zones.py has them; null: not taken yet",
        ),
    )


def downgrade() -> None:
    op.drop_column("generations", "zone_rules")
