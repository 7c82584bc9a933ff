"""The rows of a stored difference, the greatest change first, and all of them as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, TextIO

from sqlalchemy import Connection, text

from streaming.pipelines import PIPELINES
from streaming.replay.comparison import Shape
from streaming.replay.difference import Difference

_ROWS_AT_ONCE = 5_000

# Sums never mix currencies, and no more do sizes: a change is measured by what its currency comes to altogether,
# in the base, or in the candidate where the base has nothing of it. A sale that changed its currency has no change.
_LISTED = """
WITH named AS (
  SELECT *, coalesce(grp ->> 'currency', after ->> 'currency', before ->> 'currency') AS currency,
         CASE WHEN before ->> 'currency' <> after ->> 'currency' THEN NULL
              ELSE coalesce(CAST(after ->> :money AS numeric), 0)
                   - coalesce(CAST(before ->> :money AS numeric), 0) END AS change
    FROM difference_rows WHERE difference = :difference),
measured AS (
  SELECT *, round(change / nullif(abs(coalesce(
           CAST(CAST(:before_total AS jsonb) ->> currency AS numeric),
           CAST(CAST(:after_total AS jsonb) ->> currency AS numeric))), 0), 6) AS share
    FROM named)
SELECT window_start, window_end, grp, kind, before, after, rank_before, rank_after, change, share
  FROM measured
 ORDER BY abs(share) DESC NULLS LAST, abs(change) DESC NULLS LAST,
          window_start, window_end, CAST(grp AS text) COLLATE "C"
 LIMIT :most
"""

_BY_WINDOW = text(
    "SELECT window_start, kind, count(*) AS groups FROM difference_rows "
    "WHERE difference = :difference AND window_start IS NOT NULL "
    "GROUP BY window_start, kind ORDER BY window_start, kind"
)


@dataclass(frozen=True)
class Change:
    """One group that the generations show differently. Values are as stored: money is text.

    `change` is after less before, of the money; `share` that change as a share of the currency's total.
    """

    window_start: datetime | None
    window_end: datetime | None
    group: Mapping[str, str]
    kind: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    rank_before: int | None
    rank_after: int | None
    change: Decimal | None
    share: Decimal | None


def rows(connection: Connection, difference: Difference, most: int | None = None) -> Iterator[Change]:
    """What differs, the greatest change first; read as it is asked for."""
    shape = Shape.of(PIPELINES[difference.pipeline, difference.generation_version])
    found = connection.execute(
        text(_LISTED),
        {
            "difference": difference.id,
            "money": shape.money,
            "before_total": json.dumps(dict(difference.before_total)),
            "after_total": json.dumps(dict(difference.after_total)),
            "most": most,
        },
        execution_options={"yield_per": _ROWS_AT_ONCE},
    )
    for row in found:
        yield Change(*row)


def write_csv(connection: Connection, difference: Difference, file: TextIO) -> int:
    """Every row, with a column for each value before and after; gives how many there were."""
    shape = Shape.of(PIPELINES[difference.pipeline, difference.generation_version])
    window = ("window_start", "window_end") if shape.windowed else ()
    values = [f"{side}_{name}" for name in shape.values for side in ("before", "after")]
    writer = csv.writer(file)
    ends = ("change", "share_of_total", "rank_before", "rank_after")
    writer.writerow([*window, *shape.group, "kind", *values, *ends])
    count = 0
    for count, row in enumerate(rows(connection, difference), 1):  # noqa: B007
        moments = [row.window_start, row.window_end] if shape.windowed else []
        said = [_cell((side or {}).get(name)) for name in shape.values for side in (row.before, row.after)]
        writer.writerow(
            [
                *(moment.isoformat() for moment in moments if moment is not None),
                *(row.group[name] for name in shape.group),
                row.kind,
                *said,
                row.change,
                row.share,
                row.rank_before,
                row.rank_after,
            ]
        )
    return count


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def by_window(connection: Connection, difference: Difference) -> list[tuple[datetime, str, int]]:
    """How many groups of each window were added, removed, changed. Empty without windows."""
    found = connection.execute(_BY_WINDOW, {"difference": difference.id})
    return [(row.window_start, row.kind, row.groups) for row in found]
