"""What is sold where and when: a sequence of changes that is a function of its seed and its start alone.

Nothing here looks at a clock or a database, so two runs with the same arguments write the same rows.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Literal

from simulators.markets import City, cities

HOUR = timedelta(hours=1)
# How much a shop sells in each local hour, beside its best one.
DAY_RHYTHM = (2, 1, 1, 1, 1, 2, 5, 12, 30, 50, 65, 75, 85, 70, 60, 62, 75, 95, 100, 80, 45, 20, 8, 4)
# Monday to Sunday.
WEEK_RHYTHM = (0.8, 0.8, 0.85, 0.9, 1.1, 1.4, 0.6)
QUANTITIES = (1, 2, 3, 4, 5, 10)
QUANTITY_WEIGHTS = (70, 16, 6, 4, 2, 2)
# Corrections hit recent sales, as they do in shops; the oldest of these is forgotten.
REMEMBERED_SALES = 2_000


@dataclass(frozen=True, slots=True)
class Sale:
    """A row of the sales table."""

    sale_id: str
    sold_at: datetime
    city: str
    country: str
    salesman_id: str
    salesman_name: str
    product: str
    quantity: int
    amount: Decimal
    currency: str


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to the table at a time: `sale` is the row afterwards, or the one that goes."""

    at: datetime
    kind: Literal["insert", "update", "delete"]
    sale: Sale


def history(seed: int, start: datetime, end: datetime, rows: int) -> Iterator[Sale]:
    """Exactly `rows` sales in `[start, end)`, ascending by time, denser in busy hours of day and week."""
    shops = Shops(random.Random(f"{seed}/history/{start.isoformat()}/{end.isoformat()}/{rows}"))
    hours = []
    while start < end:
        hours.append((start, min(HOUR, end - start)))
        start += HOUR
    # Rounding the running sum, and not each hour, makes the total exact.
    sums = list(accumulate(shops.intensity(begin) * (length / HOUR) for begin, length in hours))
    before = 0
    for (begin, length), until in zip(hours, sums, strict=True):
        upto = round(rows * until / sums[-1])
        for offset in sorted(shops.random.random() for _ in range(upto - before)):
            yield shops.sale(begin + offset * length)
        before = upto


def live(
    seed: int, start: datetime, rate: float, update_share: float, delete_share: float
) -> Iterator[Change]:
    """`rate` changes a second from `start` on, without end; the shares of them are updates and deletes.

    The pace is even, so that a sale's `sold_at` is when it was due; the rhythm decides where it happens.
    """
    shops = Shops(random.Random(f"{seed}/live/{start.isoformat()}"))
    recent: list[Sale] = []
    number = 0
    while True:
        at = start + timedelta(seconds=number / rate)
        number += 1
        fate = shops.random.random()
        if recent and fate < delete_share:
            yield Change(at, "delete", _take(recent, shops.random))
        elif recent and fate < delete_share + update_share:
            index = shops.random.randrange(len(recent))
            recent[index] = shops.corrected(recent[index])
            yield Change(at, "update", recent[index])
        else:
            sale = shops.sale(at)
            if len(recent) < REMEMBERED_SALES:
                recent.append(sale)
            else:
                recent[shops.random.randrange(REMEMBERED_SALES)] = sale
            yield Change(at, "insert", sale)


def _take(recent: list[Sale], rng: random.Random) -> Sale:
    index = rng.randrange(len(recent))
    recent[index], recent[-1] = recent[-1], recent[index]
    return recent.pop()


def _rhythm(local: datetime) -> float:
    return DAY_RHYTHM[local.hour] * WEEK_RHYTHM[local.weekday()]


class Shops:
    """All shops of the world, drawing from one stream of random numbers."""

    def __init__(self, rng: random.Random) -> None:
        self.random = rng
        self._cities = cities()
        self._zones = {city.time_zone for city in self._cities}
        self._hour: datetime | None = None
        self._weights: list[float] = []

    def intensity(self, at: datetime) -> float:
        """How much the world sells in the hour of `at`; only ratios mean something."""
        return self._weights_at(at)[-1]

    def sale(self, at: datetime) -> Sale:
        rng = self.random
        city: City = rng.choices(self._cities, cum_weights=self._weights_at(at))[0]
        market = city.market
        salesman = rng.choice(market.salesmen)
        product, price = rng.choice(market.prices)
        quantity = rng.choices(QUANTITIES, QUANTITY_WEIGHTS)[0]
        return Sale(
            sale_id=str(uuid.UUID(int=rng.getrandbits(128), version=4)),
            sold_at=at,
            city=city.name,
            country=market.country,
            salesman_id=salesman.salesman_id,
            salesman_name=salesman.name,
            product=product,
            quantity=quantity,
            amount=Decimal(price * quantity).scaleb(-market.decimals),
            currency=market.currency,
        )

    def corrected(self, sale: Sale) -> Sale:
        """The sale after a correction: another quantity at the same price, or a colleague who sold it."""
        rng = self.random
        if rng.random() < 0.7:
            quantity = rng.choice([other for other in QUANTITIES if other != sale.quantity])
            return replace(sale, quantity=quantity, amount=sale.amount / sale.quantity * quantity)
        market = next(city.market for city in self._cities if city.market.country == sale.country)
        colleague = rng.choice([other for other in market.salesmen if other.salesman_id != sale.salesman_id])
        return replace(sale, salesman_id=colleague.salesman_id, salesman_name=colleague.name)

    def _weights_at(self, at: datetime) -> list[float]:
        """Running sums of the cities' weights in the hour of `at`, by each city's own clock."""
        hour = at.replace(minute=0, second=0, microsecond=0)
        if hour != self._hour:
            self._hour = hour
            rhythm = {zone: _rhythm(hour.astimezone(zone)) for zone in self._zones}
            self._weights = list(accumulate(city.weight * rhythm[city.time_zone] for city in self._cities))
        return self._weights
