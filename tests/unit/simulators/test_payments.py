"""What becomes of a payment is the seed's alone; what the service answers is valid by its WSDL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from lxml import etree

from contracts.soap import ENVELOPE, NAMESPACE
from simulators.payments import envelope
from simulators.payments.envelope import SCHEMA, SoapFault
from simulators.payments.failures import Failure, Failures
from simulators.payments.payment_outcomes import Paid, fate

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
DELAY = timedelta(minutes=2)
SALES = [Paid(f"s{number}", NOW, Decimal("20.0000"), "EUR") for number in range(3_000)]
PASSWORD_TEXT = (
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-username-token-profile-1.0#PasswordText"
)


def request(cursor: str = "", limit: str = "10", password: str = "mine", user: str = "me") -> bytes:
    return (
        f'<e:Envelope xmlns:e="{ENVELOPE}"><e:Header><w:Security xmlns:w="{envelope.WSSE}"><w:UsernameToken>'
        f'<w:Username>{user}</w:Username><w:Password Type="{PASSWORD_TEXT}">{password}</w:Password>'
        f'</w:UsernameToken></w:Security></e:Header><e:Body><GetPaymentConfirmations xmlns="{NAMESPACE}">'
        f"<cursor>{cursor}</cursor><limit>{limit}</limit></GetPaymentConfirmations></e:Body></e:Envelope>"
    ).encode()


def read(body: bytes) -> envelope.Request:
    return envelope.read(body, "me", "mine", lambda: NOW)


def test_the_same_seed_gives_every_sale_the_same_fate() -> None:
    assert [fate(1, sale, DELAY) for sale in SALES] == [fate(1, sale, DELAY) for sale in SALES]
    assert fate(1, SALES[0], DELAY) != fate(2, SALES[0], DELAY)


def test_most_are_paid_minutes_later_some_never_twice_differently_or_given_back() -> None:
    fates = [fate(1, sale, DELAY) for sale in SALES]
    shares = {
        "never": sum(not found for found in fates),
        "once": sum(len(found) == 1 and found[0].amount == 20 for found in fates),
        "twice": sum(len({e.status for e in found}) == 1 and len(found) == 2 for found in fates),
        "other": sum(len(found) == 1 and found[0].amount != 20 for found in fates),
        "back": sum([e.status for e in found] == ["CONFIRMED", "REFUNDED"] for found in fates),
    }
    assert sum(shares.values()) == len(SALES)
    assert shares["once"] > 0.85 * len(SALES)
    assert all(0.01 * len(SALES) < shares[kind] < 0.05 * len(SALES) for kind in shares if kind != "once")
    for found in fates:
        # A payment that is confirmed twice or refunded keeps its name.
        assert len({entry.payment_id for entry in found}) <= 1
        assert all(DELAY / 2 <= entry.confirmed_at - NOW <= 8 * DELAY for entry in found)
        assert all(entry.due_at >= entry.confirmed_at for entry in found)


def test_a_request_has_cursor_and_limit() -> None:
    assert read(request("17", "5")) == envelope.Request("17", 5)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "soap:Client"),
        (b"<a", "soap:Client"),
        (b"<a/>", "soap:VersionMismatch"),
        (b" " * 70_000, "soap:Client"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + request(), "soap:Client"),
        (request(limit="0"), "soap:Client"),
        (request(limit="many"), "soap:Client"),
        (request("c" * 1_001), "soap:Client"),
        (request().replace(b"GetPaymentConfirmations", b"DropTables"), "soap:Client"),
        (request(password="yours"), "wsse:FailedAuthentication"),
        (request(user="you"), "wsse:FailedAuthentication"),
        (request().replace(b"UsernameToken", b"Nothing"), "wsse:InvalidSecurity"),
        (request().replace(b"#PasswordText", b"#PasswordDigest"), "wsse:InvalidSecurity"),
    ],
)
def test_a_request_against_the_rules_is_a_fault(body: bytes, code: str) -> None:
    with pytest.raises(SoapFault) as found:
        read(body)
    assert found.value.code == code


@pytest.mark.parametrize("more", [True, False])
def test_a_page_is_valid_by_the_schema(more: bool) -> None:
    entries = [("p1", "s & <1>", "12.5000", "EUR", "REFUNDED", NOW.isoformat())]
    body = etree.fromstring(envelope.page(entries, "1", more)).find(f"{{{ENVELOPE}}}Body/*")
    SCHEMA.assertValid(body)
    assert body.findtext(f".//{{{NAMESPACE}}}sale_id") == "s & <1>"
    assert body.findtext(f"{{{NAMESPACE}}}more") == str(more).lower()


@pytest.mark.parametrize(("times", "expected"), [(1, 1), (3, 3), (None, 5)])
def test_a_failure_lasts_as_often_as_it_was_set(times: int | None, expected: int) -> None:
    failures = Failures()
    failures.set(Failure(mode="error", times=times))
    take: Callable[[], str] = lambda: failures.take().mode  # noqa: E731
    assert [take() for _ in range(5)].count("error") == expected
