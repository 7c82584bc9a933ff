"""Generations beside the active one: what they were asked for, barriers to compare them at, and differences."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.Text(collation="C")
MOMENT = sa.DateTime(timezone=True)

MORE = (
    sa.Column("range_start", MOMENT, comment="windows before it may not differ; null: everything may"),
    sa.Column("range_end", MOMENT, comment="windows from it on may not differ"),
    sa.Column("target_offsets", JSONB, comment='{"<partition>": offset} that building reads up to'),
    sa.Column("candidate_at", MOMENT),
    sa.Column("standby_at", MOMENT),
    sa.Column("retired_at", MOMENT, comment="null while topics and rows are being deleted"),
    sa.Column("approved_by", sa.Text),
    sa.Column("error", sa.Text, comment="why it failed, or was rolled back"),
    sa.Column("backfill", sa.Text, comment="of Dagster: its runs extend one candidate"),
)


def upgrade() -> None:
    for column in MORE:
        op.add_column("generations", column)
    # Two at once would be compared with each other's leftovers.
    op.create_index(
        "one_replay",
        "generations",
        ["pipeline"],
        unique=True,
        postgresql_where=sa.text("state IN ('building', 'candidate')"),
    )
    op.create_table(
        "barriers",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("pipeline", ID, nullable=False),
        sa.Column("generations", ARRAY(sa.Integer), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("targets", JSONB, comment='{"<partition>": offset}, those of all inputs counted through'),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "state IN ('requested', 'targeted', 'reached', 'released', 'expired')", name="known_barrier"
        ),
    )
    op.create_index(
        "one_barrier",
        "barriers",
        ["pipeline"],
        unique=True,
        postgresql_where=sa.text("state IN ('requested', 'targeted', 'reached')"),
    )
    op.create_table(
        "barrier_reports",
        sa.Column("barrier", sa.BigInteger, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False, comment="everything below it is committed"),
        sa.PrimaryKeyConstraint("barrier", "generation", "step", "partition"),
    )
    op.create_table(
        "differences",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("pipeline", ID, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("base", sa.Integer, nullable=False),
        sa.Column("promotion_number", sa.BigInteger, nullable=False),
        sa.Column("generation_version", sa.Integer, nullable=False),
        sa.Column("base_version", sa.Integer, nullable=False),
        sa.Column("targets", JSONB, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("added", "removed", "changed", "compared", "outside")
        ),
        sa.Column("before_total", JSONB, nullable=False, comment='{"<currency>": amount}'),
        sa.Column("after_total", JSONB, nullable=False),
        sa.Column("computed_at", MOMENT, nullable=False),
    )
    op.create_index("differences_newest", "differences", ["pipeline", "generation", "computed_at"])
    op.create_table(
        "difference_rows",
        sa.Column("difference", sa.BigInteger, nullable=False),
        sa.Column("window_start", MOMENT),
        sa.Column("window_end", MOMENT),
        sa.Column("grp", JSONB, nullable=False, comment="the group's columns"),
        sa.Column("kind", sa.Text, nullable=False, comment="added, removed or changed"),
        sa.Column("before", JSONB),
        sa.Column("after", JSONB),
        sa.Column("rank_before", sa.BigInteger),
        sa.Column("rank_after", sa.BigInteger),
    )
    op.create_index("difference_rows_of", "difference_rows", ["difference"])


def downgrade() -> None:
    for table in ("difference_rows", "differences", "barrier_reports", "barriers"):
        op.drop_table(table)
    op.drop_index("one_replay", "generations")
    for column in MORE:
        op.drop_column("generations", column.name)
