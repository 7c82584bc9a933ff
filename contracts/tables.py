"""The results database: what the sink writes, the API reads, and promotion moves.

The migrations in `contracts/migrations` make these tables and the views over them; a test holds both
to the same shape.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

# Avro's decimal(38, 4) of the state topic, digit for digit.
MONEY = Numeric(38, 4)
# Ranks break ties by id: bytes compare alike on every machine, a locale's order does not.
ID = Text(collation="C")
MOMENT = DateTime(timezone=True)
# Room on the page, so that an update of a total touches neither an index nor another page.
HOT = {"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.05"}

metadata = MetaData()

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
    PrimaryKeyConstraint("pipeline", "number"),
    CheckConstraint(
        "state IN ('building', 'candidate', 'active', 'standby', 'retired', 'failed')", name="known_state"
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
    PrimaryKeyConstraint("generation", "window_start", "country", "city", "currency"),
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
    PrimaryKeyConstraint("generation", "window_start", "country", "salesman_id", "currency"),
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
    PrimaryKeyConstraint("generation", "sale_id", "source"),
    Index("joined_sales_day", "generation", "sold_at"),
    Index("joined_sales_ambiguous", "generation", "sale_id", postgresql_where=text("ambiguous")),
    postgresql_with=HOT,
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
