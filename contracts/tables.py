"""Tables of the results database: written by the sink, read by the API, switched by promotion.

The migrations in `contracts/migrations` make these tables and the views over them; a test holds both
to the same shape.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

# Avro's decimal(38, 4) of the state topic, digit for digit.
MONEY = Numeric(38, 4)
# Ranks break ties by id: bytes compare alike on every machine, a locale's order does not.
ID = Text(collation="C")
MOMENT = DateTime(timezone=True)
# Room on the page, so that an update of a total touches neither an index nor another page.
HOT = {"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.05"}

metadata = MetaData()


def _is_negative() -> Column[bool]:
    """Whether a group's count is below 0: a column, so that an index over it does not hinder a HOT update."""
    return Column("is_negative", Boolean, Computed("sales_count < 0", persisted=True))


def sql_type(column: Column[Any]) -> str:
    """A column's type as PostgreSQL's `format_type` calls it."""
    compiled = column.type.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    return compiled.partition(" COLLATE ")[0].lower().replace(", ", ",")


# States of a generation that is being processed or compared; the others are history.
LIVE = ("building", "candidate", "active", "standby")

generations = Table(
    "generations",
    metadata,
    Column("pipeline", ID, nullable=False),
    Column("number", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("parameters", JSONB, nullable=False, comment='{"time_zone", "grace_seconds", "calendar"}'),
    Column(
        "topics", JSONB, nullable=False, comment='{topic name: {"id", "partitions"}}, the source included'
    ),
    Column("start_offsets", JSONB, nullable=False, comment='{"<partition>": offset}, the input of combine'),
    Column("reason", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", MOMENT, nullable=False),
    Column("promoted_at", MOMENT),
    Column("apply_number", BigInteger, nullable=False, server_default="0"),
    Column("range_start", MOMENT, comment="windows before it may not differ; null: everything may"),
    Column("range_end", MOMENT, comment="windows from it on may not differ"),
    Column("target_offsets", JSONB, comment='{"<partition>": offset} that building reads up to'),
    Column("candidate_at", MOMENT),
    Column("standby_at", MOMENT),
    Column("retired_at", MOMENT, comment="null while topics and rows are being deleted"),
    Column("approved_by", Text),
    Column("error", Text, comment="why it failed, or was rolled back"),
    Column("backfill", Text, comment="of Dagster: its runs extend one candidate"),
    Column(
        "zone_rules", Text, comment="of its time zone, as contracts/zones.py has them; null: not taken yet"
    ),
    PrimaryKeyConstraint("pipeline", "number"),
    CheckConstraint(
        "state IN ('building', 'candidate', 'active', 'standby', 'retired', 'failed')", name="known_state"
    ),
    # Two at once would be compared with each other's leftovers.
    Index(
        "one_replay",
        "pipeline",
        unique=True,
        postgresql_where=text("state IN ('building', 'candidate')"),
    ),
    postgresql_with={"fillfactor": "50"},
)

active_generations = Table(
    "active_generations",
    metadata,
    Column("pipeline", ID, primary_key=True),
    Column("generation", Integer, nullable=False),
    Column(
        "promotion_number",
        BigInteger,
        nullable=False,
        comment="grows with every promotion, rollbacks included",
    ),
)

# Input positions at which generations of a pipeline pause, so that they can be compared: see
# streaming/generations/barriers.py.
barriers = Table(
    "barriers",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("pipeline", ID, nullable=False),
    Column("generations", ARRAY(Integer), nullable=False),
    Column("state", Text, nullable=False),
    Column("targets", JSONB, comment='{"<partition>": offset}, those of all inputs counted through'),
    Column("created_at", MOMENT, nullable=False),
    Column("expires_at", MOMENT, nullable=False),
    CheckConstraint(
        "state IN ('requested', 'targeted', 'reached', 'released', 'expired')", name="known_barrier"
    ),
    Index(
        "one_barrier",
        "pipeline",
        unique=True,
        postgresql_where=text("state IN ('requested', 'targeted', 'reached')"),
    ),
)

barrier_reports = Table(
    "barrier_reports",
    metadata,
    Column("barrier", BigInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False, comment="everything below it is committed"),
    PrimaryKeyConstraint("barrier", "generation", "step", "partition"),
)

# The difference of a generation from the active one, at one input position of both.
differences = Table(
    "differences",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("pipeline", ID, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("base", Integer, nullable=False),
    Column("promotion_number", BigInteger, nullable=False),
    Column("generation_version", Integer, nullable=False),
    Column("base_version", Integer, nullable=False),
    Column("targets", JSONB, nullable=False),
    Column("fingerprint", Text, nullable=False),
    *(
        Column(name, BigInteger, nullable=False)
        for name in ("added", "removed", "changed", "compared", "outside")
    ),
    Column("before_total", JSONB, nullable=False, comment='{"<currency>": amount}'),
    Column("after_total", JSONB, nullable=False),
    Column("computed_at", MOMENT, nullable=False),
    Index("differences_newest", "pipeline", "generation", "computed_at"),
)

difference_rows = Table(
    "difference_rows",
    metadata,
    Column("difference", BigInteger, nullable=False),
    Column("window_start", MOMENT),
    Column("window_end", MOMENT),
    Column("grp", JSONB, nullable=False, comment="the group's columns"),
    Column("kind", Text, nullable=False, comment="added, removed or changed"),
    Column("before", JSONB),
    Column("after", JSONB),
    Column("rank_before", BigInteger),
    Column("rank_after", BigInteger),
    Index("difference_rows_of", "difference"),
)

sink_positions = Table(
    "sink_positions",
    metadata,
    Column("pipeline", ID, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("topic_id", Text, nullable=False, comment="of the state topic: a topic made anew has another"),
    Column("next_offset", BigInteger, nullable=False),
    Column("watermark", MOMENT, comment="everything recorded up to it is in the rows of this partition"),
    PrimaryKeyConstraint("pipeline", "generation", "partition"),
    postgresql_with={"fillfactor": "50"},
)

city_totals = Table(
    "city_totals",
    metadata,
    Column("generation", Integer, nullable=False),
    Column("window_start", MOMENT, nullable=False),
    Column("window_end", MOMENT, nullable=False),
    Column("country", ID, nullable=False),
    Column("city", ID, nullable=False),
    Column("currency", ID, nullable=False),
    Column("total", MONEY, nullable=False),
    Column("sales_count", BigInteger, nullable=False),
    Column("late_count", BigInteger, nullable=False),
    Column("late_amount", MONEY, nullable=False),
    Column("restated_at", MOMENT),
    Column("updated_at", MOMENT, nullable=False),
    Column("apply_number", BigInteger, nullable=False),
    _is_negative(),
    PrimaryKeyConstraint("generation", "window_start", "country", "city", "currency"),
    Index("city_totals_negative", "generation", postgresql_where=text("is_negative")),
    postgresql_with=HOT,
)

salesman_totals = Table(
    "salesman_totals",
    metadata,
    Column("generation", Integer, nullable=False),
    Column("window_start", MOMENT, nullable=False),
    Column("window_end", MOMENT, nullable=False),
    Column("country", ID, nullable=False),
    Column("salesman_id", ID, nullable=False),
    Column("currency", ID, nullable=False),
    Column("salesman_name", Text),
    Column("total", MONEY, nullable=False),
    Column("sales_count", BigInteger, nullable=False),
    Column("late_count", BigInteger, nullable=False),
    Column("late_amount", MONEY, nullable=False),
    Column("restated_at", MOMENT),
    Column("updated_at", MOMENT, nullable=False),
    Column("apply_number", BigInteger, nullable=False),
    _is_negative(),
    PrimaryKeyConstraint("generation", "window_start", "country", "salesman_id", "currency"),
    Index("salesman_totals_negative", "generation", postgresql_where=text("is_negative")),
    postgresql_with=HOT,
)

# A sale of one source with the payments of its sale_id. Not a total of a window: the key is the sale.
joined_sales = Table(
    "joined_sales",
    metadata,
    Column("generation", Integer, nullable=False),
    Column("sale_id", ID, nullable=False),
    Column("source", ID, nullable=False),
    Column("currency", ID, nullable=False),
    Column("sales_count", BigInteger, nullable=False, comment="0: reversed, and hidden"),
    Column("quantity", BigInteger, nullable=False),
    Column("amount", MONEY, nullable=False),
    Column("sold_at", MOMENT, nullable=False),
    Column("country", ID, nullable=False),
    Column("city", ID, nullable=False),
    Column("salesman_id", ID, nullable=False),
    Column("salesman_name", Text, nullable=False),
    Column("product", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("payments", JSONB, nullable=False, comment="of the sale_id; amounts are strings"),
    Column(
        "ambiguous", Boolean, nullable=False, comment="another source has the id too: no payment joins it"
    ),
    Column("updated_at", MOMENT, nullable=False),
    Column("apply_number", BigInteger, nullable=False),
    _is_negative(),
    PrimaryKeyConstraint("generation", "sale_id", "source"),
    Index("joined_sales_negative", "generation", postgresql_where=text("is_negative")),
    Index("joined_sales_day", "generation", "sold_at"),
    Index("joined_sales_ambiguous", "generation", "sale_id", postgresql_where=text("ambiguous")),
    postgresql_with=HOT,
)

# Ids that the registry has ever given to our schema of an input, to restore lost ones: see
# streaming/generations/schema_ids.py.
schema_ids = Table(
    "schema_ids",
    metadata,
    Column("subject", ID, nullable=False),
    Column("id", Integer, nullable=False),
    PrimaryKeyConstraint("subject", "id"),
)

# A cache of `sales-events`: the sale that counts for every sale_id of the CSV files. `seq` is its event's.
csv_sales = Table(
    "csv_sales",
    metadata,
    Column("sale_id", ID, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("sold_at", BigInteger, nullable=False, comment="microseconds of the Unix epoch"),
    Column("city", Text, nullable=False),
    Column("country", Text, nullable=False),
    Column("salesman_id", Text, nullable=False),
    Column("salesman_name", Text, nullable=False),
    Column("product", Text, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False, comment="ten-thousandths"),
    Column("currency", Text, nullable=False),
    Index("csv_sales_seq", "seq"),
)

# What `csv_sales` reflects: every event of the source below `next_seq`, and those below the offsets in the log.
csv_cache = Table(
    "csv_cache",
    metadata,
    Column("topic_id", Text, primary_key=True, comment="of sales-events: a topic made anew has another"),
    Column("next_seq", BigInteger, nullable=False),
    Column("seen", BigInteger, nullable=False, comment="the seq behind the greatest that was applied"),
    Column("offsets", JSONB, nullable=False, comment='{"<partition>": next offset}'),
)

# The newest event of each job from `openlineage-events`: its run, inputs and outputs with their columns.
lineage_jobs = Table(
    "lineage_jobs",
    metadata,
    Column("namespace", ID, nullable=False),
    Column("name", ID, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("event_at", MOMENT, nullable=False),
    Column("generation", Text, comment="`<pipeline>.gN` that it works for; null: for all"),
    Column("facets", JSONB, nullable=False, comment="of job and run"),
    Column("inputs", JSONB, nullable=False, comment="datasets with their facets"),
    Column("outputs", JSONB, nullable=False),
    PrimaryKeyConstraint("namespace", "name"),
)

# Its runs: open ones, and for an hour ended ones, so that duplicate or late events do not reopen them.
lineage_runs = Table(
    "lineage_runs",
    metadata,
    Column("namespace", ID, nullable=False),
    Column("name", ID, nullable=False),
    Column("run_id", ID, nullable=False),
    Column("is_open", Boolean, nullable=False),
    Column("event_at", MOMENT, nullable=False, comment="of the last event"),
    Column("watermark", MOMENT),
    PrimaryKeyConstraint("namespace", "name", "run_id"),
)

# Position in the topic, committed with the rows.
lineage_positions = Table(
    "lineage_positions",
    metadata,
    Column("topic_id", Text, primary_key=True, comment="a topic made anew has another"),
    Column("next_offset", BigInteger, nullable=False),
)
