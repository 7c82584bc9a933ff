"""Generations, positions, totals, and the views of the active generation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.Text(collation="C")
MOMENT = sa.DateTime(timezone=True)
MONEY = sa.Numeric(38, 4)
HOT = {"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.05"}

# One row for every pipeline: what the active generation is, and how far it is applied.
ACTIVE = """
CREATE VIEW active_freshness AS
SELECT g.pipeline, g.number AS generation, a.promotion_number, g.apply_number,
       g.parameters ->> 'time_zone' AS time_zone, g.parameters ->> 'calendar' AS calendar,
       make_interval(secs => (g.parameters ->> 'grace_seconds')::double precision) AS grace,
       (SELECT CASE WHEN count(p.watermark)
                         = (g.topics -> (g.pipeline || '.g' || g.number || '.state') ->> 'partitions')::int
                    THEN min(p.watermark) END
          FROM sink_positions p WHERE p.pipeline = g.pipeline AND p.generation = g.number) AS watermark
  FROM active_generations a JOIN generations g ON g.pipeline = a.pipeline AND g.number = a.generation
"""

VIEW = """
CREATE VIEW {view} AS
SELECT t.window_start, t.window_end, f.time_zone,
       row_number() OVER (PARTITION BY t.window_start, {ranked_within} ORDER BY t.total DESC, {ids}) AS rank,
       {columns}, t.currency, t.total, t.sales_count, t.late_count, t.late_amount,
       t.restated_at, t.updated_at, f.watermark, coalesce(f.watermark >= t.window_end + f.grace, false) AS is_final,
       t.generation, f.promotion_number
  FROM active_freshness f JOIN {table} t ON t.generation = f.generation
 WHERE f.pipeline = '{pipeline}' AND t.sales_count <> 0
"""


def upgrade() -> None:
    op.create_table(
        "generations",
        sa.Column("pipeline", ID, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("parameters", JSONB, nullable=False, comment='{"time_zone", "grace_seconds", "calendar"}'),
        sa.Column(
            "topics", JSONB, nullable=False, comment='{topic name: {"id", "partitions"}}, the source included'
        ),
        sa.Column(
            "start_offsets", JSONB, nullable=False, comment='{"<partition>": offset}, the input of combine'
        ),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("promoted_at", MOMENT),
        sa.Column("apply_number", sa.BigInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("pipeline", "number"),
        sa.CheckConstraint(
            "state IN ('building', 'candidate', 'active', 'standby', 'retired', 'failed')", name="known_state"
        ),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "active_generations",
        sa.Column("pipeline", ID, primary_key=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column(
            "promotion_number",
            sa.BigInteger,
            nullable=False,
            comment="grows with every promotion, rollbacks included",
        ),
    )
    op.create_table(
        "sink_positions",
        sa.Column("pipeline", ID, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column(
            "topic_id", sa.Text, nullable=False, comment="of the state topic: a topic made anew has another"
        ),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.Column(
            "watermark", MOMENT, comment="everything recorded up to it is in the rows of this partition"
        ),
        sa.PrimaryKeyConstraint("pipeline", "generation", "partition"),
        postgresql_with={"fillfactor": "50"},
    )
    _totals("city_totals", "city", [])
    _totals("salesman_totals", "salesman_id", [sa.Column("salesman_name", sa.Text)])
    op.execute(ACTIVE)
    op.execute(
        VIEW.format(
            view="top_sales_by_city",
            pipeline="top-sales-by-city",
            table="city_totals",
            columns="t.country, t.city",
            ranked_within="t.currency",
            ids="t.country, t.city",
        )
    )
    op.execute(
        VIEW.format(
            view="top_salesman_by_country",
            pipeline="top-salesman-by-country",
            table="salesman_totals",
            columns="t.country, t.salesman_id, t.salesman_name",
            ranked_within="t.country, t.currency",
            ids="t.salesman_id",
        )
    )


def _totals(name: str, id_column: str, more: list[sa.Column[str]]) -> None:
    op.create_table(
        name,
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("window_start", MOMENT, nullable=False),
        sa.Column("window_end", MOMENT, nullable=False),
        sa.Column("country", ID, nullable=False),
        sa.Column(id_column, ID, nullable=False),
        sa.Column("currency", ID, nullable=False),
        *more,
        sa.Column("total", MONEY, nullable=False),
        sa.Column("sales_count", sa.BigInteger, nullable=False),
        sa.Column("late_count", sa.BigInteger, nullable=False),
        sa.Column("late_amount", MONEY, nullable=False),
        sa.Column("restated_at", MOMENT),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("apply_number", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("generation", "window_start", "country", id_column, "currency"),
        postgresql_with=HOT,
    )


def downgrade() -> None:
    for view in ("top_salesman_by_country", "top_sales_by_city", "active_freshness"):
        op.execute(f"DROP VIEW {view}")
    for table in ("salesman_totals", "city_totals", "sink_positions", "active_generations", "generations"):
        op.drop_table(table)
