"""A difference as Dagster shows it: a summary, totals, the greatest changes, a chart, and the way to its promotion."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dagster as dg
import yaml
from sqlalchemy import Engine

from contracts import differences
from contracts.differences import Change

if TYPE_CHECKING:
    # The code server loads this module, and only runs need the engine.
    from streaming.replay.difference import Difference

LOCATION = "electrored"
# For reading on a page; the API and `electrored diff --csv` give every row.
ROWS_SHOWN = 20
# Colours that can be distinguished with red-green blindness.
KINDS = {"added": "tab:blue", "removed": "tab:orange", "changed": "tab:gray"}
CHART_INCHES, CHART_DPI = (9.0, 3.2), 80


def described(results: Engine, difference: Difference) -> dict[str, Any]:
    """A difference as metadata: totals, the greatest changes, a chart, and the way to its promotion."""
    with results.connect() as connection:
        rows = list(differences.changes(connection, difference.shape, difference.id, ROWS_SHOWN))
        by_window = differences.by_window(connection, difference.id)
    # Values for people first; those that programs read last.
    metadata: dict[str, Any] = {"what": dg.MetadataValue.md(summary(difference))}
    if not difference.outside:
        link = f"[Open the launchpad of `promote`, filled in]({launchpad(difference)})"
        metadata["promote"] = dg.MetadataValue.md(link)
    if by_window:
        metadata["chart"] = dg.MetadataValue.md(
            f"![groups that differ](data:image/png;base64,{_chart(by_window)})"
        )
    if rows:
        metadata["greatest_changes"] = dg.MetadataValue.table([_record(row) for row in rows])
    return metadata | {
        "totals": _totals(difference),
        "generation": difference.generation,
        "compared_with": difference.base,
        "groups_compared": difference.compared,
        "added": difference.added,
        "removed": difference.removed,
        "changed": difference.changed,
        "outside_of_range": difference.outside,
        "fingerprint": difference.fingerprint,
        "computed_at": dg.MetadataValue.timestamp(difference.computed_at),
    }


def launchpad(difference: Difference) -> str:
    """The launchpad of `promote`, filled in for this difference except for `approved_by`."""
    config = {
        "ops": {
            "promote_generation": {
                "config": {
                    "pipeline": difference.pipeline,
                    "generation": difference.generation,
                    "fingerprint": difference.fingerprint,
                    "approved_by": "",
                }
            }
        }
    }
    text = quote(yaml.safe_dump(config, sort_keys=False))
    # Relative: a run does not know the web server's address.
    return f"/locations/{LOCATION}/jobs/promote/playground/setup?config={text}"


def summary(difference: Difference) -> str:
    if difference.is_empty:
        return f"**Nothing differs** in {difference.compared:,} groups."
    text = (
        f"**{difference.count:,} of {difference.compared:,} groups differ**: {difference.added:,} added, "
        f"{difference.removed:,} removed, {difference.changed:,} changed."
    )
    if difference.outside:
        text += f" {difference.outside:,} of them lie outside of the range: it will not be promoted."
    return text


def _totals(difference: Difference) -> dg.MetadataValue[Any]:
    records = []
    for currency in sorted({*difference.before_total, *difference.after_total}):
        before, after = (
            Decimal(side.get(currency, "0")) for side in (difference.before_total, difference.after_total)
        )
        # Money is exact, and JSON's numbers are not.
        records.append(
            dg.TableRecord(
                {
                    "currency": currency,
                    "before": f"{before:,}",
                    "after": f"{after:,}",
                    "change": f"{after - before:+,}",
                }
            )
        )
    schema = dg.TableSchema([dg.TableColumn(name) for name in ("currency", "before", "after", "change")])
    return dg.MetadataValue.table(records, schema=schema)


def _record(row: Change) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "window": "" if row.window_start is None else f"{row.window_start:%Y-%m-%d %H:%M}",
            "group": " ".join(row.group.values()),
            "kind": row.kind,
            "before": _money(row.before),
            "after": _money(row.after),
            "change": "" if row.change is None else f"{row.change:+,}",
            "share of total": "" if row.share is None else f"{row.share:+.4%}",
            "rank": _rank(row),
        }
    )


def _money(side: Mapping[str, Any] | None) -> str:
    return "" if side is None else str(side.get("total", side.get("amount", "")))


def _rank(row: Change) -> str:
    if row.rank_before == row.rank_after:
        return "" if row.rank_after is None else str(row.rank_after)
    return f"{row.rank_before or '-'} → {row.rank_after or '-'}"


def _chart(groups: Sequence[tuple[datetime, str, int]]) -> str:
    """A PNG in base64: how many groups of each window differ, and how. Money would need a chart for each currency."""
    # Without pyplot, which keeps figures and wants a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
    from matplotlib.figure import Figure

    # matplotlib counts days.
    starts = sorted({float(date2num(start)) for start, _, _ in groups})
    width = 0.8 * min((later - start for start, later in pairwise(starts)), default=1.0)
    below = dict.fromkeys(starts, 0)
    figure = Figure(figsize=CHART_INCHES, dpi=CHART_DPI, layout="constrained")
    axes = figure.subplots()
    for kind, colour in KINDS.items():
        of_kind = {float(date2num(start)): count for start, of, count in groups if of == kind}
        heights = [of_kind.get(start, 0) for start in starts]
        axes.bar(starts, heights, width=width, bottom=list(below.values()), label=kind, color=colour)
        below = {start: below[start] + height for start, height in zip(starts, heights, strict=True)}
    locator = AutoDateLocator()
    axes.xaxis_date(tz=UTC)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_xlabel("window")
    axes.set_ylabel("groups")
    axes.legend()
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    return base64.b64encode(picture.getvalue()).decode()
