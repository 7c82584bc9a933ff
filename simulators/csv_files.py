"""Files of sales as a branch office sends them: a few rows each, some sent twice, some corrected later."""

from __future__ import annotations

import csv
import random
import threading
from collections.abc import Iterator
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path

from simulators.sales import Sale, Shops
from simulators.sales_writer import COLUMNS

# Shares of a file's rows: repeated from an earlier file, and repeated with another amount.
DUPLICATE_SHARE, CORRECTION_SHARE = 0.04, 0.04
# Repeated sales are drawn from so many of the latest.
REMEMBERED_SALES = 500


class Office:
    """One branch office; what it sends is a function of its seed and the times of its files."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"{seed}/csv")
        self._shops = Shops(self._random)
        self._sent: list[Sale] = []

    def rows(self, count: int, at: datetime) -> Iterator[Sale]:
        """The sales of one file."""
        for _ in range(count):
            fate = self._random.random()
            if self._sent and fate < DUPLICATE_SHARE + CORRECTION_SHARE:
                index = self._random.randrange(len(self._sent))
                if fate < CORRECTION_SHARE:
                    self._sent[index] = self._shops.corrected(self._sent[index])
                yield self._sent[index]
            else:
                sale = self._shops.sale(at)
                self._sent.append(sale)
                del self._sent[:-REMEMBERED_SALES]
                yield sale


def drop(inbox: Path, name: str, sales: Iterator[Sale]) -> Path:
    """Write a file beside the others and rename it into place: it is there whole, or not at all."""
    inbox.mkdir(parents=True, exist_ok=True)
    hidden, path = inbox / f".{name}", inbox / name
    with hidden.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((sale.sale_id, sale.sold_at.isoformat(), *astuple(sale)[2:]) for sale in sales)
    return hidden.rename(path)


def run(
    inbox: Path, seed: int, rows: int, every_seconds: float, stop: threading.Event, limit: int | None
) -> int:
    """Drop files until `stop` or the limit; gives how many."""
    office = Office(seed)
    dropped = 0
    while not stop.is_set() and dropped != limit:
        at = datetime.now(UTC)
        drop(inbox, f"sales_{at:%Y%m%dT%H%M%S}_{at.microsecond:06}.csv", office.rows(rows, at))
        dropped += 1
        stop.wait(every_seconds)
    return dropped
