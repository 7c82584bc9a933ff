"""The simulated sales are a function of the seed and the start, and look like those of real shops."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from simulators.markets import cities
from simulators.sales import Change, Sale, history, live

START = datetime(2026, 11, 2, tzinfo=UTC)
END = START + timedelta(days=28)


def changes(seed: int, count: int, start: datetime = START, rate: float = 10.0) -> list[Change]:
    return list(islice(live(seed, start, rate, update_share=0.02, delete_share=0.01), count))


@pytest.fixture(scope="module")
def month() -> list[Sale]:
    return list(history(seed=7, start=START, end=END, rows=20_000))


def test_the_same_seed_and_start_give_the_same_rows() -> None:
    assert changes(1, 2_000) == changes(1, 2_000)
    assert list(history(1, START, END, 500)) == list(history(1, START, END, 500))


def test_another_seed_or_start_gives_other_sales() -> None:
    ids = {change.sale.sale_id for change in changes(1, 500)}
    assert ids.isdisjoint(change.sale.sale_id for change in changes(2, 500))
    assert ids.isdisjoint(change.sale.sale_id for change in changes(1, 500, start=END)), (
        "a simulator that is started again must not meet the rows of its first life"
    )


def test_the_pace_is_even_and_sold_at_is_when_it_was_due() -> None:
    made = changes(1, 200, rate=4.0)
    assert [change.at for change in made] == [START + timedelta(seconds=n / 4) for n in range(200)]
    assert all(change.sale.sold_at == change.at for change in made if change.kind == "insert")


def test_updates_and_deletes_are_a_small_share_and_hit_rows_that_exist() -> None:
    rows: dict[str, Sale] = {}
    kinds: Counter[str] = Counter()
    for change in changes(3, 20_000):
        kinds[change.kind] += 1
        if change.kind == "insert":
            assert change.sale.sale_id not in rows
            rows[change.sale.sale_id] = change.sale
        elif change.kind == "update":
            assert rows[change.sale.sale_id] != change.sale, "a correction changes something"
            assert rows[change.sale.sale_id].country == change.sale.country
            rows[change.sale.sale_id] = change.sale
        else:
            assert rows.pop(change.sale.sale_id) == change.sale
    assert 300 < kinds["update"] < 500
    assert 140 < kinds["delete"] < 260


def test_a_history_has_exactly_the_rows_asked_for_in_time_order(month: list[Sale]) -> None:
    assert len(month) == 20_000
    sold = [sale.sold_at for sale in month]
    assert sold == sorted(sold)
    assert sold[0] >= START
    assert sold[-1] < END
    assert len({sale.sale_id for sale in month}) == 20_000


def test_shops_sell_by_day_and_hardly_by_night(month: list[Sale]) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    hours = Counter(sale.sold_at.astimezone(berlin).hour for sale in month if sale.country == "DE")
    assert sum(hours[hour] for hour in range(9, 20)) > 10 * sum(hours[hour] for hour in range(6))


def test_saturdays_are_busier_than_sundays(month: list[Sale]) -> None:
    days = Counter(
        sale.sold_at.astimezone(ZoneInfo("Asia/Tokyo")).weekday() for sale in month if sale.country == "JP"
    )
    assert days[5] > 1.5 * days[6]


def test_salesmen_belong_to_one_country_and_names_to_one_salesman(month: list[Sale]) -> None:
    homes: dict[str, set[tuple[str, str]]] = {}
    for sale in month:
        homes.setdefault(sale.salesman_id, set()).add((sale.country, sale.salesman_name))
    assert all(len(home) == 1 for home in homes.values())


def test_amounts_are_positive_and_have_the_decimals_of_their_currency(month: list[Sale]) -> None:
    for sale in month + [change.sale for change in changes(5, 5_000)]:
        assert sale.amount > 0
        assert sale.quantity > 0
        smallest = 1 if sale.currency in ("JPY", "KRW") else 100
        assert sale.amount * smallest % 1 == 0, sale


def test_cities_are_unique_and_countries_have_one_currency() -> None:
    found = cities()
    assert len({(city.market.country, city.name) for city in found}) == len(found)
    assert {"Berlin", "Tokyo", "São Paulo"} <= {city.name for city in found}
    assert {city.market.currency for city in found if city.market.country == "DE"} == {"EUR"}
