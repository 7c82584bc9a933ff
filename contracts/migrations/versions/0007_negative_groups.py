"""Groups whose count is below 0, which only a broken source makes, are found without reading the others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = ("city_totals", "salesman_totals", "joined_sales")


def upgrade() -> None:
    for table in TABLES:
        # A column of its own, which hardly ever changes: with the count in the index, no update would be a HOT one.
        op.add_column(
            table, sa.Column("is_negative", sa.Boolean, sa.Computed("sales_count < 0", persisted=True))
        )
        op.create_index(f"{table}_negative", table, ["generation"], postgresql_where=sa.text("is_negative"))


def downgrade() -> None:
    for table in TABLES:
        op.drop_index(f"{table}_negative", table)
        op.drop_column(table, "is_negative")
