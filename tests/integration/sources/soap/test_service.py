"""The poll and the simulated service together: sales are confirmed by the seed, through every failure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url

from simulators.payments.payment_outcomes import Entry, Paid, fate
from simulators.sales import history
from sources.soap.client import PaymentService
from sources.soap.errors import Faulted
from sources.soap.transport import Limits
from stack.postgres import connect
from tests.support.soap_server import Polls, Service
from tests.support.waiting import wait_until

END = datetime(2026, 11, 2, tzinfo=UTC)
SALES = [
    Paid(sale.sale_id, sale.sold_at, sale.amount, sale.currency)
    for sale in history(3, END - timedelta(days=1), END, 300)
]


def sell(service: Service, sales: list[Paid]) -> list[Entry]:
    """Write sales to the table; returns their confirmations, once the service has them."""
    connection = connect(make_url(service.sales.sales_db_url.get_secret_value()))
    try:
        with connection.cursor() as cursor:
            for sale in sales:
                cursor.execute(
                    "insert into public.sales values (%s, %s, 'Berlin', 'DE', 's1', 'Ada', 'tv', 1, %s, %s)",
                    (sale.sale_id, sale.sold_at, sale.amount, sale.currency),
                )
    finally:
        connection.close()
    expected = [entry for sale in sales for entry in fate(7, sale, timedelta(0))]
    client = PaymentService(service.settings())
    wait_until(lambda: len(client.page("", 5_000).good) >= len(expected))
    return expected


def content(found: list[dict[str, Any]] | list[Entry]) -> list[tuple[object, ...]]:
    names = ("payment_id", "sale_id", "amount", "currency", "status", "confirmed_at")
    values = [one if isinstance(one, dict) else {name: getattr(one, name) for name in names} for one in found]
    return sorted(tuple(one[name] for name in names) for one in values)


def test_what_was_sold_is_confirmed_as_the_seed_says(polls: Polls, service: Service) -> None:
    expected = sell(service, SALES)
    result = polls.poll(service.settings(), page=50)
    assert result.confirmations == len(expected)
    assert content(polls.confirmations()) == content(expected)
    # Each kind is there: never, twice, another amount, given back.
    by_sale = {sale.sale_id: [e for e in expected if e.sale_id == sale.sale_id] for sale in SALES}
    amounts = {sale.sale_id: sale.amount for sale in SALES}
    kinds = {
        "never": any(not entries for entries in by_sale.values()),
        "twice": any(content(es[:1]) == content(es[1:]) for es in by_sale.values() if len(es) == 2),
        "other": any(e.amount != amounts[e.sale_id] for e in expected),
        "back": any(e.status == "REFUNDED" for e in expected),
    }
    assert all(kinds.values()), kinds


def test_cursors_mean_the_same_after_the_service_was_killed(polls: Polls, service: Service) -> None:
    expected = sell(service, SALES[:100])
    polls.poll(service.settings(), page=7)
    service.kill()
    service.start()
    client = PaymentService(service.settings())
    more = [entry for sale in SALES[100:110] for entry in fate(7, sale, timedelta(0))]
    sell(service, SALES[100:110])
    wait_until(lambda: len(client.page("", 5_000).good) >= len(expected) + len(more))
    polls.poll(service.settings(), page=7)
    assert content(polls.confirmations()) == content(expected + more)


@pytest.mark.parametrize(
    "failure",
    [
        {"mode": "error", "times": 2},
        {"mode": "truncated", "times": 2},
        {"mode": "timeout", "times": 1, "seconds": 30},
        {"mode": "slow", "times": 1, "seconds": 30},
        {"mode": "slow", "times": 1, "seconds": 0.5},
    ],
)
def test_what_passes_costs_time_and_nothing_else(
    polls: Polls, service: Service, failure: dict[str, object]
) -> None:
    expected = sell(service, SALES[:20])
    service.fails(**failure)
    result = polls.poll(service.settings(), limits=Limits(total_seconds=2))
    assert result.confirmations == len(expected)
    assert content(polls.confirmations()) == content(expected)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("fault", "Server: the ledger of payments is closed for the night"),
        ("expired", "FailedAuthentication: the credentials have expired"),
    ],
)
def test_a_refusal_ends_the_poll_with_its_words(
    polls: Polls, service: Service, mode: str, words: str
) -> None:
    expected = sell(service, SALES[:20])
    service.fails(mode=mode, times=1)
    with pytest.raises(Faulted, match=words):
        polls.poll(service.settings())
    assert polls.log(polls.topics.positions) == []
    polls.poll(service.settings())
    assert content(polls.confirmations()) == content(expected)


def test_a_bad_record_costs_only_itself(polls: Polls, service: Service) -> None:
    expected = sell(service, SALES[:20])
    service.fails(mode="bad-record", times=1)
    result = polls.poll(service.settings())
    assert (result.confirmations, result.dead) == (len(expected) - 1, 1)


def test_a_wrong_password_is_refused_as_text_and_as_digest(service: Service) -> None:
    for digest in (False, True):
        right = service.settings(soap_digest=digest)
        assert PaymentService(right).page("", 1).next_cursor == ""
        wrong = service.settings(soap_digest=digest, soap_password="yours")
        with pytest.raises(Faulted, match="FailedAuthentication: user name and password do not fit"):
            PaymentService(wrong).page("", 1)


def test_a_cursor_that_was_never_given_is_a_fault(service: Service) -> None:
    for cursor in ("7", "x", "-1"):
        with pytest.raises(Faulted, match="Client: the cursor"):
            PaymentService(service.settings()).page(cursor, 1)


def test_the_command_polls_and_ends_and_the_service_stops_in_order(polls: Polls, service: Service) -> None:
    expected = sell(service, list(islice(SALES, 20)))
    assert polls.process(service.settings()).wait(120) == 0
    assert len(polls.confirmations()) == len(expected)
    assert sum((e.amount for e in expected), Decimal(0)) == sum(f["amount"] for f in polls.confirmations())
    assert service.stop() == 0


def test_the_service_gives_its_wsdl_with_its_own_address(service: Service) -> None:
    for address in (f"{service.address}/payments", f"{service.address}/payments?wsdl"):
        assert f'location="{service.address}/payments"' in httpx.get(address).text
