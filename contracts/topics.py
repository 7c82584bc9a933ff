"""The topic catalogue: key, settings and schema of every public topic, and the topics of generations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FOREVER = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
# Small segments and an early cleaner: these topics are read whole at a start, so their length is start-up time.
# No smaller and no more often than the least that managed services take: Confluent Cloud 50 MiB and 600 s, MSK with
# tiered storage 48 MiB and 600 s. At low load time closes a segment first.
COMPACTED = {
    "cleanup.policy": "compact",
    "segment.bytes": str(50 * 1024 * 1024),
    "segment.ms": "600000",
    "min.cleanable.dirty.ratio": "0.1",
    "delete.retention.ms": "86400000",
}
# Settings that lose or falsify records if they are wrong; the others affect speed only.
KEEPING = ("cleanup.policy", "retention.ms", "retention.bytes", "message.timestamp.type")
# Every transaction pays for each partition that it touches, in requests, markers and fetches: with 4 and 2 instead of 8
# and 4 a platform on two cores spends a third less on a transaction (docs/benchmarks.md). 4 are read by up to four
# workers of some 300,000 events/s each; the counts are fixed at creation.
SALES_PARTITIONS = 4
# One commit of combine is one record per partition, so these hold few, larger records.
INTERNAL_PARTITIONS = 2


@dataclass(frozen=True)
class Topic:
    """A topic as it is created. `schema` names a file in `contracts/schemas`; `key` is documentation.

    FULL_TRANSITIVE: old and new readers of other teams keep working. `whole`: results are computed from all of it, so
    it begins at offset 0 for ever; compaction removes superseded records only.
    """

    name: str
    key: str
    partitions: int
    schema: str
    config: Mapping[str, str] = field(default_factory=dict)
    compatibility: str = "FULL_TRANSITIVE"
    whole: bool = False

    @property
    def kept(self) -> dict[str, str]:
        """The part of its configuration that decides which records stay and what their time means."""
        return {name: value for name, value in self.config.items() if name in KEEPING}

    @property
    def subject(self) -> str:
        return f"{self.name}-value"


# LogAppendTime: the broker's clock orders the record's place in the log; event time is in the event.
SALES_EVENTS = Topic(
    "sales-events",
    "sale_id",
    SALES_PARTITIONS,
    "sale_event",
    FOREVER | {"message.timestamp.type": "LogAppendTime"},
    whole=True,
)
# Settings and partitions of the sales: the join reads both from the beginning.
PAYMENT_CONFIRMATIONS = Topic(
    "payment-confirmations",
    "sale_id",
    SALES_PARTITIONS,
    "payment_confirmation",
    FOREVER | {"message.timestamp.type": "LogAppendTime"},
    whole=True,
)
# Read by our own processes only, which are upgraded together: a source may add a record type of its own.
SOURCE_POSITIONS = Topic(
    "source-positions",
    "source",
    1,
    "source_position",
    COMPACTED,
    compatibility="BACKWARD_TRANSITIVE",
    whole=True,
)
# The key deduplicates: every live generation of a pipeline reports the same late event.
LATE_EVENTS = Topic(
    "late-events", "origin/partition/offset/pipeline", SALES_PARTITIONS, "late_event", COMPACTED
)
DEAD_LETTERS = Topic("dead-letters", "origin/partition/offset", 1, "dead_letter", COMPACTED)
TOP_SALES_BY_CITY = Topic("top-sales-by-city", "group", INTERNAL_PARTITIONS, "city_total", COMPACTED)
TOP_SALESMAN_BY_COUNTRY = Topic(
    "top-salesman-by-country", "group", INTERNAL_PARTITIONS, "salesman_total", COMPACTED
)
# Read by `sale_id`, as payments and sales are.
ENRICHED_SALES = Topic("enriched-sales", "sale_id", INTERNAL_PARTITIONS, "enriched_sale", COMPACTED)

# JSON, one partition: events are in the order of their sending. The newest event of each job is in the results database
# (`lineage_jobs`); the topic itself is for other readers, with a week of history. Each event has all columns of a job,
# 120 KB a minute for three pipelines; compressed it is a tenth.
OPENLINEAGE_EVENTS = Topic(
    "openlineage-events",
    "run:<namespace>/<job>, of the parent if there is one",
    1,
    "",
    {
        "cleanup.policy": "delete",
        "retention.ms": str(7 * 24 * 3600 * 1000),
        "compression.type": "zstd",
    },
)

PUBLIC = (
    SALES_EVENTS,
    PAYMENT_CONFIRMATIONS,
    SOURCE_POSITIONS,
    LATE_EVENTS,
    DEAD_LETTERS,
    TOP_SALES_BY_CITY,
    TOP_SALESMAN_BY_COUNTRY,
    ENRICHED_SALES,
)


def combine_step(inputs: Sequence[str], source: str) -> str:
    """The name of the step that reads `source`: each of several inputs has a combine step of its own."""
    return "combine" if len(inputs) == 1 else f"combine.{source}"


@dataclass(frozen=True)
class GenerationTopics:
    """The internal topics of one generation of a pipeline: `<pipeline>.gN.<role>`."""

    pipeline: str
    generation: int

    def _name(self, role: str) -> str:
        return f"{self.pipeline}.g{self.generation}.{role}"

    @property
    def partials(self) -> Topic:
        """combine → merge; one record per commit and partition, deleted only below merge's progress."""
        return Topic(self._name("partials"), "none", INTERNAL_PARTITIONS, "", FOREVER)

    @property
    def state(self) -> Topic:
        """merge → store, sink, publisher: the newest total of every group, and the partition's watermark."""
        key = "group, or `watermark`"
        return Topic(self._name("state"), key, INTERNAL_PARTITIONS, "", COMPACTED, whole=True)

    @property
    def progress(self) -> Topic:
        """One partition for all: a transaction pays for every partition that it touches, not for the records in it."""
        return Topic(self._name("progress"), "step/topic/partition", 1, "progress", COMPACTED, whole=True)

    @property
    def all(self) -> tuple[Topic, Topic, Topic]:
        return self.partials, self.state, self.progress

    def group_id(self, step: str) -> str:
        """Consumer group of a step (`combine`, `combine.<input>`, `merge`, `sink`)."""
        return self._name(step)

    def transactional_id(self, step: str, slot: int | str) -> str:
        """One per step and instance, or slice of a replay: a restarted one fences its predecessor."""
        return f"{self._name(step)}.{slot}"
