"""The difference of a generation from the active one: exact, at one input position of both, and stored.

Taken in one REPEATABLE READ snapshot in which a barrier is `reached`: then the rows of both generations are of the same
input. The fingerprint identifies what was compared, so that a promotion approves what was seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, Row, insert, select, text, update

from contracts.differences import Shape
from contracts.settings import KafkaSettings
from contracts.tables import differences, generations, metadata
from streaming.pipelines import PIPELINES
from streaming.replay import comparison
from streaming.replay.errors import RequestRefused
from streaming.replay.failpoints import failpoint
from streaming.replay.snapshot import active_of, check_near, find, in_snapshot, known_of, pointer_of

# Rows in this process at a time, so that memory does not depend on the size of a difference.
_ROWS_AT_ONCE = 5_000
# A few times the usual latency: a generation that has not reported by then is behind.
BARRIER_SECONDS = 20.0


class ReachedBarrier(Protocol):
    """A barrier that was reached: the listed generations are paused at exactly these input positions."""

    @property
    def targets(self) -> Mapping[int, int]: ...

    def check(self, connection: Connection) -> None:
        """Raise RequestRefused unless the barrier is `reached` in this connection's snapshot."""


# Kafka, results, pipeline, numbers of the generations, seconds: the signature of `barrier.hold_at_barrier`.
Hold = Callable[
    [KafkaSettings, Engine, str, Sequence[int], float],
    AbstractContextManager[ReachedBarrier],
]


@dataclass(frozen=True)
class Difference:
    """A row of `differences`. Totals are decimals as text, by currency."""

    id: int
    pipeline: str
    generation: int
    base: int
    promotion_number: int
    generation_version: int
    base_version: int
    targets: Mapping[int, int]
    fingerprint: str
    added: int
    removed: int
    changed: int
    compared: int
    before_total: Mapping[str, str]
    after_total: Mapping[str, str]
    outside: int
    computed_at: datetime

    @property
    def count(self) -> int:
        return self.added + self.removed + self.changed

    @property
    def is_empty(self) -> bool:
        return self.count == 0

    @property
    def shape(self) -> Shape:
        return shape_of(self.pipeline, self.generation_version)


def shape_of(pipeline: str, version: int) -> Shape:
    return Shape(metadata.tables[PIPELINES[pipeline, version].table])


def take(kafka: KafkaSettings, results: Engine, pipeline: str, number: int, *, hold: Hold) -> Difference:
    """Pause the generation and the active one at one position, and compare them there. Raises RequestRefused; Behind if
    the generation may reach that position later.

    The barrier is released as soon as the snapshot is taken: the comparison does not pause live traffic.
    """
    known = known_of(results, pipeline)
    generation, active = find(known, pipeline, number), active_of(known, pipeline)
    if generation.state not in ("candidate", "standby"):
        raise RequestRefused(
            f"{pipeline} g{number} is {generation.state}: only a candidate or a standby can be compared"
        )

    check_near(results, pipeline, number, active.number)

    def compare(connection: Connection) -> Difference:
        with hold(kafka, results, pipeline, (active.number, number), BARRIER_SECONDS) as barrier:
            barrier.check(connection)
        result = compute(connection, barrier, pipeline, number)
        failpoint("diff.before_commit")
        connection.commit()
        return result

    return in_snapshot(results, pipeline, compare)


def compute(connection: Connection, barrier: ReachedBarrier, pipeline: str, number: int) -> Difference:
    """Compare the generation with the active one in the connection's snapshot, and store what differs.

    The connection is in a REPEATABLE READ transaction in which `held.check` was passed, and which the caller commits;
    the barrier may be released by now. Raises RequestRefused.
    """
    connection.execute(text("SET LOCAL timezone = 'UTC'"))
    generation = _generation(connection, pipeline, number)
    pointer = pointer_of(connection, pipeline)
    base = _generation(connection, pipeline, pointer.generation)
    if base.number == number:
        raise RequestRefused(
            f"{pipeline} g{number} is the active generation: it differs from itself in nothing"
        )
    shape = shape_of(pipeline, generation.version)
    before, after = (_totals(connection, shape, side) for side in (base.number, number))
    values = {
        "pipeline": pipeline,
        "generation": number,
        "base": base.number,
        "promotion_number": pointer.promotion_number,
        "generation_version": generation.version,
        "base_version": base.version,
        "targets": {str(partition): offset for partition, offset in sorted(barrier.targets.items())},
        "before_total": {row.currency: row.total for row in before},
        "after_total": {row.currency: row.total for row in after},
        "computed_at": datetime.now(UTC),
    }
    unknown = {"fingerprint": "", "added": 0, "removed": 0, "changed": 0, "compared": 0, "outside": 0}
    stored = connection.scalar(insert(differences).values(values | unknown).returning(differences.c.id))
    connection.execute(
        comparison.compare(shape), {"difference": stored, "base": base.number, "generation": number}
    )
    kinds = {"added": 0, "removed": 0, "changed": 0}
    kinds |= {row.kind: row.groups for row in connection.execute(_KINDS, {"difference": stored})}
    counts = {
        **kinds,
        "compared": sum(row.groups for row in before) + kinds["added"],
        "outside": _outside(connection, stored, generation),
        "fingerprint": _fingerprint(connection, stored, values, generation),
    }
    connection.execute(update(differences).where(differences.c.id == stored).values(counts))
    return _from_row(connection.execute(select(differences).where(differences.c.id == stored)).one())


def is_any_outside(connection: Connection, pipeline: str, number: int) -> bool:
    """Whether the generation differs from the active one in windows outside of its range.

    Stores nothing and reads nothing else: it runs while live results wait.
    """
    generation = _generation(connection, pipeline, number)
    if generation.range_start is None:
        return False
    values = {
        "base": pointer_of(connection, pipeline).generation,
        "generation": number,
        "range_start": generation.range_start,
        "range_end": generation.range_end,
    }
    wanted = comparison.is_any_outside(shape_of(pipeline, generation.version))
    return bool(connection.execute(wanted, values).scalar_one())


def newest(results: Engine, pipeline: str, number: int) -> Difference | None:
    """The difference of the generation that was computed last; None before the first."""
    with results.connect() as connection:
        return newest_in(connection, pipeline, number)


def newest_in(connection: Connection, pipeline: str, number: int) -> Difference | None:
    """The same as `newest`, in the snapshot of the connection."""
    wanted = (
        select(differences)
        .where(differences.c.pipeline == pipeline, differences.c.generation == number)
        .order_by(differences.c.computed_at.desc(), differences.c.id.desc())
        .limit(1)
    )
    row = connection.execute(wanted).one_or_none()
    return None if row is None else _from_row(row)


_KINDS = text(
    "SELECT kind, count(*) AS groups FROM difference_rows WHERE difference = :difference GROUP BY kind"
)
# Byte order is the same on every machine and in every locale.
_ORDERED = text(
    "SELECT window_start, window_end, CAST(grp AS text) AS grp, kind, CAST(before AS text) AS before, "
    "CAST(after AS text) AS after, rank_before, rank_after FROM difference_rows WHERE difference = :difference "
    'ORDER BY window_start, window_end, CAST(grp AS text) COLLATE "C"'
)
_OUTSIDE = text(
    "SELECT count(*) FROM difference_rows WHERE difference = :difference "
    "AND (window_start < :range_start OR window_start >= :range_end)"
)


def _generation(connection: Connection, pipeline: str, number: int) -> Row[Any]:
    row = connection.execute(
        select(generations).where(generations.c.pipeline == pipeline, generations.c.number == number)
    ).one_or_none()
    if row is None:
        raise RequestRefused(f"{pipeline} has no generation {number}")
    return row


def _totals(connection: Connection, shape: Shape, number: int) -> list[Row[Any]]:
    return list(connection.execute(comparison.totals(shape), {"generation": number}))


def _outside(connection: Connection, stored: int, generation: Row[Any]) -> int:
    """How many of the rows are of windows outside of the range; none without a range."""
    if generation.range_start is None:
        return 0
    bounds = {"difference": stored, "range_start": generation.range_start, "range_end": generation.range_end}
    return int(connection.execute(_OUTSIDE, bounds).scalar_one())


def _fingerprint(connection: Connection, stored: int, values: Mapping[str, Any], generation: Row[Any]) -> str:
    """SHA-256 of what was compared, where, by which range, and every row."""
    names = ("pipeline", "generation", "base", "promotion_number", "targets")
    header = [*(values[name] for name in names), str(generation.range_start), str(generation.range_end)]
    digest = hashlib.sha256(json.dumps(header).encode())
    ordered = connection.execute(
        _ORDERED, {"difference": stored}, execution_options={"yield_per": _ROWS_AT_ONCE}
    )
    for row in ordered:
        digest.update(json.dumps([str(value) for value in row]).encode())
    return digest.hexdigest()


def _from_row(row: Row[Any]) -> Difference:
    fields = row._asdict()
    targets = {int(partition): offset for partition, offset in fields.pop("targets").items()}
    return Difference(**fields, targets=targets)
