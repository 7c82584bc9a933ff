"""Sales with their payments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.Text(collation="C")
MOMENT = sa.DateTime(timezone=True)
HOT = {"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.05"}

# The watermark is the least over both inputs: everything recorded up to it, sale or payment, is joined. So a sale
# that is still without a payment by then is unpaid, until one comes.
VIEW = """
CREATE VIEW enriched_sales AS
SELECT t.sale_id, t.source, t.sold_at, t.country, t.city, t.salesman_id, t.salesman_name, t.product, t.quantity,
       t.amount, t.currency,
       CASE WHEN t.status = 'PENDING' AND f.watermark >= t.sold_at + interval '7 days' THEN 'UNPAID'
            ELSE t.status END AS status,
       t.payments, t.ambiguous, t.updated_at, f.watermark, t.generation, f.promotion_number
  FROM active_freshness f JOIN joined_sales t ON t.generation = f.generation
 WHERE f.pipeline = 'enriched-sales' AND t.sales_count <> 0
"""


def upgrade() -> None:
    op.create_table(
        "joined_sales",
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("sale_id", ID, nullable=False),
        sa.Column("source", ID, nullable=False),
        sa.Column("currency", ID, nullable=False),
        sa.Column("sales_count", sa.BigInteger, nullable=False, comment="0: reversed, and hidden"),
        sa.Column("quantity", sa.BigInteger, nullable=False),
        sa.Column("amount", sa.Numeric(38, 4), nullable=False),
        sa.Column("sold_at", MOMENT, nullable=False),
        sa.Column("country", ID, nullable=False),
        sa.Column("city", ID, nullable=False),
        sa.Column("salesman_id", ID, nullable=False),
        sa.Column("salesman_name", sa.Text, nullable=False),
        sa.Column("product", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("payments", JSONB, nullable=False, comment="of the sale_id; amounts are strings"),
        sa.Column(
            "ambiguous",
            sa.Boolean,
            nullable=False,
            comment="another source has the id too: no payment joins it",
        ),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("apply_number", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("generation", "sale_id", "source"),
        postgresql_with=HOT,
    )
    op.create_index("joined_sales_day", "joined_sales", ["generation", "sold_at"])
    op.create_index(
        "joined_sales_ambiguous",
        "joined_sales",
        ["generation", "sale_id"],
        postgresql_where=sa.text("ambiguous"),
    )
    op.execute(VIEW)


def downgrade() -> None:
    op.execute("DROP VIEW enriched_sales")
    op.drop_table("joined_sales")
