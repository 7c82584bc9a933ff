"""Generations and differences as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from sqlalchemy import Row

from contracts.differences import Change
from streaming.replay.difference import Difference


def generations(rows: Sequence[Row[Any]]) -> RenderableType:
    """One line each, the newest of a pipeline first."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("generation", "state", "created (UTC)", "what"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(
            Text(f"{row.pipeline} g{row.number}"),
            Text(row.state, style={"active": "green", "failed": "red", "retired": "dim"}.get(row.state, "")),
            _moment(row.created_at),
            Text("; ".join(_what(row))),
        )
    return table


def _what(row: Row[Any]) -> Iterable[str]:
    of = row.parameters
    yield f"{row.reason} ({row.created_by})"
    yield f"version {row.version}, {of['calendar']}, {of['time_zone']}, grace {of['grace_seconds']:g} s"
    if row.range_start is not None:
        yield f"only {_range(row.range_start, row.range_end)}"
    if row.approved_by:
        yield f"approved by {row.approved_by}"
    if row.error:
        yield row.error


def difference(result: Difference, listed: Iterable[Change]) -> RenderableType:
    """The summary, then the given rows."""
    parts: list[RenderableType] = [
        Text(
            f"{result.pipeline}: g{result.generation} against g{result.base}, which is active", style="bold"
        ),
        Text(
            f"{result.compared:,} groups compared: {result.added:,} added, {result.removed:,} removed, "
            f"{result.changed:,} changed"
        ),
    ]
    if result.outside:
        parts.append(
            Text(f"{result.outside:,} of them outside of the range: it will not be promoted", style="red")
        )
    if not result.is_empty:
        parts += [_totals(result), _rows(result, list(listed))]
    parts.append(Text(f"fingerprint {result.fingerprint}"))
    return Group(*parts)


def _totals(difference: Difference) -> Table:
    table = Table(title="totals", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("currency")
    for title in ("before", "after", "change"):
        table.add_column(title, justify="right")
    for currency in sorted({*difference.before_total, *difference.after_total}):
        before, after = (
            Decimal(side.get(currency, "0")) for side in (difference.before_total, difference.after_total)
        )
        table.add_row(currency, f"{before:,}", f"{after:,}", f"{after - before:+,}")
    return table


def _rows(difference: Difference, listed: Sequence[Change]) -> Table:
    title = (
        f"the {len(listed)} greatest of {difference.count:,}"
        if len(listed) < difference.count
        else "all of them"
    )
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("window", "group", "kind"):
        table.add_column(name, overflow="fold")
    # In a narrow terminal texts are folded, and numbers are not cut.
    for name in ("before", "after", "change", "share of total", "rank"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in listed:
        table.add_row(
            "" if row.window_start is None else _range(row.window_start, row.window_end),
            " ".join(row.group.values()),
            row.kind,
            _differing(row.before, row.after),
            _differing(row.after, row.before),
            "" if row.change is None else f"{row.change:+,}",
            "" if row.share is None else f"{row.share:+.4%}",
            _rank(row),
        )
    return table


def _differing(side: Any, other: Any) -> str:
    """The values of one generation's group that differ from the other's."""
    if side is None:
        return "-"
    if other is None:
        return _money(side.get("total", side.get("amount")))
    return "\n".join(
        _money(value) if name in ("total", "amount") else f"{name} {value}"
        for name, value in side.items()
        if value != other[name]
    )


def _money(value: Any) -> str:
    return "-" if value is None else f"{Decimal(str(value)):,}"


def _rank(row: Change) -> str:
    if row.rank_before == row.rank_after:
        return "" if row.rank_after is None else str(row.rank_after)
    return f"{row.rank_before or '-'} → {row.rank_after or '-'}"


def _range(start: datetime | None, end: datetime | None) -> str:
    return "" if start is None or end is None else f"{_moment(start)} to {_moment(end)}"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}" if f"{moment:%H%M%S}" == "000000" else f"{moment:%Y-%m-%d %H:%M}"
