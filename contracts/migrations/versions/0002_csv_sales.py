"""The cache of what the CSV files have said."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "csv_sales",
        sa.Column("sale_id", sa.Text(collation="C"), primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("sold_at", sa.BigInteger, nullable=False, comment="microseconds of the Unix epoch"),
        sa.Column("city", sa.Text, nullable=False),
        sa.Column("country", sa.Text, nullable=False),
        sa.Column("salesman_id", sa.Text, nullable=False),
        sa.Column("salesman_name", sa.Text, nullable=False),
        sa.Column("product", sa.Text, nullable=False),
        sa.Column("quantity", sa.BigInteger, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False, comment="ten-thousandths"),
        sa.Column("currency", sa.Text, nullable=False),
    )
    op.create_index("csv_sales_seq", "csv_sales", ["seq"])
    op.create_table(
        "csv_cache",
        sa.Column(
            "topic_id", sa.Text, primary_key=True, comment="of sales-events: a topic made anew has another"
        ),
        sa.Column("next_seq", sa.BigInteger, nullable=False),
        sa.Column(
            "seen", sa.BigInteger, nullable=False, comment="the seq behind the greatest that was applied"
        ),
        sa.Column("offsets", JSONB, nullable=False, comment='{"<partition>": next offset}'),
    )


def downgrade() -> None:
    op.drop_table("csv_cache")
    op.drop_table("csv_sales")
