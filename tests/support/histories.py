"""Histories of sales for the test driver, and the oracle: a plain GROUP BY in Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from streaming.engine.pipeline import Parameters, Pipeline

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CITIES = [
    ("DE", "Berlin"), ("DE", "Köln | Mitte"), ("FR", "Paris"), ("FR", "Berlin"), ("US", "A\\|B"), ("US", "A|B"),
]  # fmt: skip
MOMENTS = st.integers(-40 * 86_400_000_000, 40 * 86_400_000_000).map(
    lambda us: NOON + timedelta(microseconds=us)
)
AMOUNTS = st.integers(-(10**18) + 1, 10**18 - 1).map(lambda n: Decimal(n).scaleb(-4))


@dataclass
class Source:
    """A source that names its events and turns changes into facts, as sources do."""

    name: str = "postgres"
    next_seq: int = 0
    live: dict[str, dict[str, Any]] = field(default_factory=dict)

    def event(self, row: Mapping[str, Any], operation: str, recorded_at: datetime) -> dict[str, Any]:
        sign = 1 if operation == "SALE" else -1
        facts = {
            "quantity": sign * row["quantity"],
            "amount": sign * row["amount"],
            "recorded_at": recorded_at,
        }
        event = {**row, **facts, "source": self.name, "seq": self.next_seq, "operation": operation}
        self.next_seq += 1
        return event


def _placed(row: dict[str, Any]) -> dict[str, Any]:
    country, city = row["place"]
    return {k: v for k, v in row.items() if k != "place"} | {"country": country, "city": city}


ROWS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "sold_at": MOMENTS,
        "place": st.sampled_from(CITIES),
        "salesman_id": st.sampled_from(["s1", "s2", "ß3"]),
        "salesman_name": st.sampled_from(["Ada", "Bo", "Ćiro"]),
        "product": st.just("tv"),
        "quantity": st.integers(1, 3),
        "amount": AMOUNTS,
        "currency": st.sampled_from(["EUR", "USD"]),
    }
).map(_placed)


@st.composite
def histories(draw: st.DrawFn, most: int = 40) -> list[dict[str, Any]]:
    """Inserts, updates and deletes as the events that sources make of them."""
    sources = [Source("postgres"), Source("csv")]
    events: list[dict[str, Any]] = []
    for number in range(draw(st.integers(0, most))):
        source = draw(st.sampled_from(sources))
        row = draw(ROWS)
        recorded_at = draw(st.one_of(st.just(row["sold_at"]), MOMENTS))
        known = sorted(source.live)
        change = draw(st.sampled_from(["insert", "insert", "update", "delete"])) if known else "insert"
        if change == "insert":
            row["sale_id"] = f"{source.name}-{number}"
            source.live[row["sale_id"]] = row
            events.append(source.event(row, "SALE", recorded_at))
            continue
        sale_id = draw(st.sampled_from(known))
        old = source.live.pop(sale_id)
        events.append(source.event(old, "REVERSAL", recorded_at))
        if change == "update":
            source.live[sale_id] = row | {"sale_id": sale_id}
            events.append(source.event(source.live[sale_id], "SALE", recorded_at))
    return events


def window_of(moment: datetime, parameters: Parameters) -> tuple[datetime, datetime]:
    """The window by civil date: a second way to the same answer, in zones whose clocks do not turn at midnight."""
    window = parameters.windows.window_of(moment.astimezone(ZoneInfo(parameters.time_zone)).date())
    return window.start, window.end


def oracle(
    pipeline: Pipeline, parameters: Parameters, events: Iterable[Mapping[str, Any]]
) -> dict[bytes, dict[str, Any]]:
    """Totals by group key, summed one event at a time."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        window = window_of(event["sold_at"], parameters)
        groups[(window, *(event[column] for column in pipeline.group_by))].append(event)
    totals = {}
    for (window, *values), members in groups.items():
        start, end = window
        late = [event for event in members if event["recorded_at"] >= end + parameters.grace]
        total = {
            "window_start": start,
            "window_end": end,
            **dict(zip(pipeline.group_by, values, strict=True)),
            "total": sum((event["amount"] for event in members), Decimal("0.0000")),
            "sales_count": sum(1 if event["operation"] == "SALE" else -1 for event in members),
            "late_count": len(late),
            "late_amount": sum((event["amount"] for event in late), Decimal("0.0000")),
            "restated_at": max((event["recorded_at"] for event in late), default=None),
        }
        if "salesman_id" in pipeline.group_by:
            newest = max(members, key=lambda e: (e["sold_at"], e["sale_id"].encode(), e["seq"]))
            total |= {
                "salesman_name": newest["salesman_name"],
                "name_sold_at": newest["sold_at"],
                "name_sale_id": newest["sale_id"],
                "name_seq": newest["seq"],
            }
        escaped = [value.replace("\\", "\\\\").replace("|", "\\|") for value in values]
        totals["|".join([start.strftime("%Y-%m-%dT%H:%M:%SZ"), *escaped]).encode()] = total
    return totals
