"""Sales table, files and payment service at once, with kills: every answer equals a plain recomputation."""

from __future__ import annotations

import csv
import os
import random
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from stack.ports import Ports
from tests.e2e.causes import forget_position
from tests.e2e.command import Platform, free_offset, new_platform, remove, until
from tests.e2e.oracle import (
    CITY_RESULTS,
    COLUMNS,
    RESULTS,
    SALESMAN_RESULTS,
    assert_same,
    confirmed,
    expected_join,
    expected_totals,
    found_join,
    replay,
    results,
    sold,
    totals,
    wait_for_watermark,
)
from tests.e2e.payments import Service, serving
from tests.e2e.runs import code_server, end_of, kill_runs, launch, stop_schedule_of_polls

pytestmark = pytest.mark.soak

PLACES = [("Berlin", "DE", "EUR"), ("Lyon", "FR", "EUR"), ("Leeds", "GB", "GBP")]
# Takes seconds, so that a kill finds it half taken; few ids, so that the join has little to do.
LARGE_ROWS, LARGE_IDS = 200_000, 2_000
# Rows of one page of the payment service, as the poll asks for them.
PAGE = 500


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """Asks a payment service of ours, whose payments come within seconds; files are taken more often than usual."""
    offset = free_offset()
    soap = {
        "ELECTRORED_SOAP_WSDL": f"http://127.0.0.1:{Ports.with_offset(offset).payments}/payments",
        "ELECTRORED_SOAP_USERNAME": "test",
        "ELECTRORED_SOAP_PASSWORD": "test",
    }
    made = replace(new_platform(), offset=offset, settings=soap | {"ELECTRORED_CSV_EVERY_SECONDS": "5"})
    try:
        made.up("--no-simulate")
        stop_schedule_of_polls(made)
        yield made
    finally:
        remove(made)


@pytest.fixture(scope="module")
def service(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(platform, tmp_path_factory.mktemp("payments") / "journal.sqlite3") as found:
        yield found


# What is done to the platform.


@contextmanager
def _selling(platform: Platform) -> Iterator[None]:
    """Inserts, updates and deletes at about a hundred a second until the block ends."""
    stop, choose = threading.Event(), random.Random(11)
    insert = f"insert into public.sales ({', '.join(COLUMNS[:-1])}) values ({', '.join(['%s'] * 10)})"
    failed: list[BaseException] = []

    def sell() -> None:
        try:
            with closing(platform.connect()) as connection:
                cursor, number = connection.cursor(), 0
                while not stop.wait(0.01):
                    number += 1
                    cursor.execute(insert, _row(f"table-{number}", choose)[:-1])
                    if number % 5 == 0:
                        cursor.execute(
                            "update public.sales set amount = amount + 1 where sale_id = %s",
                            (f"table-{number}",),
                        )
                    if number % 11 == 0:
                        cursor.execute(
                            "delete from public.sales where sale_id = %s", (f"table-{number - 10}",)
                        )
        except BaseException as error:
            failed.append(error)

    seller = threading.Thread(target=sell)
    seller.start()
    try:
        yield
    finally:
        stop.set()
        seller.join(60)
    assert not seller.is_alive()
    assert not failed, f"the seller failed: {failed}"


def _row(sale_id: str, choose: random.Random, **changes: str) -> list[str]:
    """A row of a file; sold today or yesterday."""
    city, country, currency = choose.choice(PLACES)
    salesman = f"s-{choose.randrange(9)}"
    at = datetime.now(UTC) - timedelta(hours=choose.choice([0, 0, 24]))
    amount = f"{choose.randrange(1, 9_000_000)}.{choose.randrange(10_000):04}"
    cells = [
        sale_id,
        at.isoformat(),
        city,
        country,
        salesman,
        salesman.title(),
        "Lamp",
        "2",
        amount,
        currency,
    ]
    made = dict(zip(COLUMNS, [*cells, ""], strict=True)) | changes
    return list(made.values())


def _drop(platform: Platform, name: str, rows: Iterable[list[str]]) -> str:
    """Rename a file into the inbox; gives its text."""
    inbox = Path(platform.addresses["ELECTRORED_CSV_INBOX"])
    hidden = inbox / f".{name}"
    with hidden.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    text = hidden.read_text(encoding="utf-8")
    hidden.rename(inbox / name)
    return text


def _copies(platform: Platform) -> list[Path]:
    """Files that are being taken."""
    return list(Path(platform.addresses["ELECTRORED_CSV_INBOX"]).glob(".taking/" + "[0-9a-f]" * 64))


def _is_taken(platform: Platform) -> bool:
    """Nothing waits and nothing is being taken."""
    inbox = Path(platform.addresses["ELECTRORED_CSV_INBOX"])
    return not list(inbox.glob("sales_*.csv")) and not _copies(platform)


def _kill(platform: Platform, name: str) -> None:
    pid = platform.pid(name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def _payments_joined(platform: Platform) -> int:
    query = "select coalesce(sum(jsonb_array_length(payments)), 0) from enriched_sales"
    return int(results(platform, query)[0][0])


def _joined_up_to(platform: Platform) -> datetime | None:
    found = results(platform, "select watermark from active_freshness where pipeline = 'enriched-sales'")
    return found[0][0] if found else None


def _small(choose: random.Random) -> list[list[str]]:
    """Sales, each twice, some corrected, some taken back, and bad rows."""
    rows = [_row(f"file-{n}", choose) for n in range(300)]
    corrected = [_row(f"file-{n}", choose) for n in range(0, 300, 7)]
    back = [_row(f"file-{n}", choose, operation="REVERSAL") for n in range(0, 300, 10)]
    unknown = [_row("never-said", choose, operation="REVERSAL")]
    bad = [
        _row("bad-1", choose, amount="about ten"),
        _row("bad-2", choose, sold_at="yesterday"),
        _row("bad-3", choose, city=""),
        _row("bad-4", choose, currency="EURO"),
        _row("file-1", choose, operation="UNDO"),
        _row("bad-5", choose)[:7],
    ]
    return [*rows, *bad, *rows[:150], *corrected, *unknown, *back]


def _large(choose: random.Random) -> Iterator[list[str]]:
    """Many rows of few sales: most are repeats, some corrections, few reversals."""
    said: dict[int, list[str]] = {}
    for number in range(LARGE_ROWS):
        sale = choose.randrange(LARGE_IDS)
        fate = choose.random()
        if sale not in said or fate < 0.01:
            said[sale] = _row(f"large-{sale}", choose, country="BG", city="Sofia", currency="BGN")
        if fate > 0.998:
            yield _row(f"large-{sale}", choose, operation="REVERSAL")
        elif number % 10_007 == 0:
            yield _row(f"large-{sale}", choose, quantity="two")
        else:
            yield said[sale]


def _across(platform: Platform, service: Service, choose: random.Random) -> list[list[str]]:
    """Rows of the other files again, ids that the table has too, and ids that are sold here instead of there."""
    paid = {row[0]: row[1:] for row in service.ask("select sale_id, amount, currency from confirmations")}
    both = sorted(paid.keys() & sold(platform).keys())[:60]
    moved, ambiguous = both[:30], both[30:]
    with closing(platform.connect()) as connection:
        connection.cursor().execute("delete from public.sales where sale_id = any(%s)", (moved,))
    return [
        *(_row(sale_id, choose, amount=paid[sale_id][0], currency=paid[sale_id][1]) for sale_id in moved),
        *(_row(sale_id, choose) for sale_id in ambiguous),
        *(_row(f"file-{n}", choose) for n in range(0, 300, 9)),
        *(_row(f"large-{n}", choose, operation="REVERSAL") for n in range(0, LARGE_IDS, 50)),
        *(_row(sale_id, choose, operation="REVERSAL") for sale_id in ambiguous[:10]),
    ]


@pytest.mark.timeout(900)
def test_answers_are_a_plain_recomputation_of_three_sources_while_processes_are_killed(
    platform: Platform, service: Service
) -> None:
    """kill -9 of a run in the middle of a file, a poll in the middle of a page, the city's and the join's worker."""
    choose, files = random.Random(5), []
    large, server = list(_large(choose)), code_server(platform)
    with _selling(platform):
        files.append(_drop(platform, "sales_a.csv", _small(choose)))
        files.append(_drop(platform, "sales_b.csv", large))
        _kill_in_the_middle_of_the_large_file(platform, server)
        _kill(platform, "worker-city")
        files.append(_drop(platform, "sales_c.csv", [*_small(choose), *large[:500]]))
        until(lambda: service.listed() > PAGE + 100, 60, "confirmations for more than a page")
        _kill_in_the_middle_of_a_page(platform, service, server)
        _kill(platform, "worker-enriched")
        files.append(_drop(platform, "sales_d.csv", _across(platform, service, choose)))
        assert end_of(platform, launch(platform, "soap_poll")) == "SUCCESS"
    until(lambda: _is_taken(platform), 120, "all files are taken")
    until(lambda: not service.has_more_to_come(), 60, "the service lists every payment")
    # Row 21: what comes next would be dropped, had it seqs that the workers saw. Row 20: a person asks once more.
    forget_position(platform, "soap")
    polled = platform.run("soap", "poll", "--from", "")
    assert polled.returncode == 0, polled.stderr
    assert f"behind the cursor '': {service.listed()} confirmations, 0 dead letters" in polled.stdout
    _assert_recomputed(platform, service, files)


def _kill_in_the_middle_of_the_large_file(platform: Platform, server: psutil.Process) -> None:
    with closing(platform.connect(RESULTS)) as connection:
        cursor = connection.cursor()

        def is_begun() -> bool:
            cursor.execute("select 1 from csv_sales where sale_id like 'large-%' limit 1")
            return bool(cursor.fetchall())

        until(is_begun, 90, "the first rows of the large file are taken")
    kill_runs(server)
    assert _copies(platform), "the large file was taken before its run was killed: it has to be larger"


def _kill_in_the_middle_of_a_page(platform: Platform, service: Service, server: psutil.Process) -> None:
    listed = service.listed()
    # Every page takes so long that the second is on its way when the first is joined.
    service.told_to(mode="slow", seconds=10, times=None)
    killed = launch(platform, "soap_poll")
    until(lambda: _payments_joined(platform) > 0, 90, "the first page is joined")
    kill_runs(server)
    service.told_to(mode="none")
    assert end_of(platform, killed) == "FAILURE"
    joined = _payments_joined(platform)
    assert 0 < joined <= PAGE < listed, f"{joined} of {listed} were joined: not killed behind the first page"


def _assert_recomputed(platform: Platform, service: Service, files: list[str]) -> None:
    finished_at = datetime.now(UTC)
    assert end_of(platform, launch(platform, "soap_poll")) == "SUCCESS"
    wait_for_watermark(platform, finished_at)
    until(
        lambda: (_joined_up_to(platform) or finished_at) > finished_at,
        90,
        f"all is joined up to {finished_at}",
    )
    table, said, payments = sold(platform), replay(files), confirmed(service)
    by_city, by_salesman = expected_totals([*table.values(), *said.values()])
    assert_same(totals(platform, RESULTS, CITY_RESULTS), by_city, "totals by city")
    assert_same(totals(platform, RESULTS, SALESMAN_RESULTS), by_salesman, "totals by salesman")
    joined = expected_join(table, said, payments)
    assert_same(found_join(platform), joined, "sales joined with their payments")
    # The data had all cases: statuses, ambiguous ids.
    assert {status for _, status, _, _ in joined.values()} == {
        "PENDING", "CONFIRMED", "AMOUNT_MISMATCH", "REFUNDED"
    }  # fmt: skip
    assert sum(ambiguous for *_, ambiguous in joined.values()) == 40
    assert any(source == "csv" and status == "CONFIRMED" for (_, source), (_, status, _, _) in joined.items())
