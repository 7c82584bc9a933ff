"""Sales table, files and payment service at once, with kills: every answer is what a plain recomputation says."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import psutil
import pytest

from stack.ports import Ports
from tests.e2e.conftest import PROJECT, Platform, environment, free_offset, new_platform, remove, until
from tests.e2e.oracle import CITY_RESULTS, SALESMAN_RESULTS, Totals, totals, wait_for_watermark

RESULTS = "ELECTRORED_RESULTS_DB_URL"
COLUMNS = ("sale_id", "sold_at", "city", "country", "salesman_id", "salesman_name", "product", "quantity",
           "amount", "currency", "operation")  # fmt: skip
PLACES = [("Berlin", "DE", "EUR"), ("Lyon", "FR", "EUR"), ("Leeds", "GB", "GBP")]
# Takes seconds, so that a kill finds it half taken; few ids, so that the join has little to do.
LARGE_ROWS, LARGE_IDS = 200_000, 2_000
# Rows of one page of the payment service, as the poll asks for them.
PAGE = 500
WINDOW_SECONDS = 30 * 86_400


@dataclass(frozen=True)
class Sale:
    """A sale as a table or a file has it."""

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


@dataclass(frozen=True)
class Service:
    """The simulated payment service and the file of its list."""

    url: str
    journal: Path

    def told_to(self, **failure: object) -> None:
        body = json.dumps(failure).encode()
        headers = {"content-type": "application/json"}
        asked = urllib.request.Request(f"{self.url}/failure", body, headers, method="PUT")
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert answer.status == 200

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(query).fetchall()

    def listed(self) -> int:
        return int(self.ask("select count(*) from confirmations")[0][0])

    def has_more_to_come(self) -> bool:
        return bool(self.ask("select 1 from waiting limit 1"))


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
        _stop_schedule_of_polls(made)
        yield made
    finally:
        remove(made)


@pytest.fixture(scope="module")
def service(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    port = str(Ports.with_offset(platform.offset).payments)
    journal = tmp_path_factory.mktemp("payments") / "journal.sqlite3"
    command = [sys.executable, "-m", "simulators", "payments", "--port", port, "--journal", str(journal)]
    told = {**environment(), **platform.settings}
    told["ELECTRORED_SALES_DB_URL"] = platform.addresses["ELECTRORED_SALES_DB_URL"]
    with subprocess.Popen([*command, "--delay-seconds", "2"], cwd=PROJECT, env=told) as process:
        try:
            found = Service(f"http://127.0.0.1:{port}", journal)
            until(lambda: _answers(f"{found.url}/health"), 60, "the payment service answers")
            yield found
        finally:
            process.terminate()
            process.wait(20)


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False


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
        seller.join(30)
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


def _kill_runs(server: psutil.Process) -> None:
    """kill -9 of every run's process."""
    runs = [one for one in server.children() if "spawn_main" in " ".join(one.cmdline())]
    assert runs, "no run is on its way"
    for run in runs:
        run.kill()


def _code_server(platform: Platform) -> psutil.Process:
    """Runs are its children. Asked for before the moment of a kill: the command takes its time."""
    return psutil.Process(platform.pid("dagster-code"))


def _kill(platform: Platform, name: str) -> None:
    pid = platform.pid(name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def _dagster(platform: Platform, query: str) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    url = f"{platform.addresses['ELECTRORED_DAGSTER_URL']}/graphql"
    asked = urllib.request.Request(url, json.dumps({"query": query}).encode(), headers)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    assert "errors" not in found, found
    data: dict[str, Any] = found["data"]
    return data


def _stop_schedule_of_polls(platform: Platform) -> None:
    """Polls are ours alone: one of every five minutes could end before the one that is to be killed."""
    schedule = '{repositoryLocationName: "electrored", repositoryName: "__repository__", scheduleName: "poll_payments"}'
    found = _dagster(
        platform,
        f"{{ scheduleOrError(scheduleSelector: {schedule}) {{ ... on Schedule {{ scheduleState {{ id }} }} }} }}",
    )
    state_id = found["scheduleOrError"]["scheduleState"]["id"]
    stopped = _dagster(platform, f'mutation {{ stopRunningSchedule(id: "{state_id}") {{ __typename }} }}')
    assert stopped["stopRunningSchedule"]["__typename"] == "ScheduleStateResult", stopped


def _launch_poll(platform: Platform) -> str:
    """The job that a person starts to poll now; gives the run's id."""
    job = '{repositoryLocationName: "electrored", repositoryName: "__repository__", jobName: "soap_poll"}'
    launched = _dagster(
        platform,
        f"mutation {{ launchRun(executionParams: {{selector: {job}}}) "
        "{ __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return str(launched["run"]["runId"])


def _end(platform: Platform, run_id: str) -> str:
    """How the run ended; waits for it."""

    def status() -> str:
        found = _dagster(platform, f'{{ runOrError(runId: "{run_id}") {{ ... on Run {{ status }} }} }}')
        return str(found["runOrError"]["status"])

    until(lambda: status() in ("SUCCESS", "FAILURE", "CANCELED"), 90, f"the end of the poll {run_id}")
    return status()


def _results(platform: Platform, query: str) -> list[tuple[Any, ...]]:
    with closing(platform.connect(RESULTS)) as connection:
        cursor = connection.cursor()
        cursor.execute(query)
        return cursor.fetchall()


def _payments_joined(platform: Platform) -> int:
    query = "select coalesce(sum(jsonb_array_length(payments)), 0) from enriched_sales"
    return int(_results(platform, query)[0][0])


def _joined_up_to(platform: Platform) -> datetime | None:
    found = _results(platform, "select watermark from active_freshness where pipeline = 'enriched-sales'")
    return found[0][0] if found else None


# What must come out.


def _sale(cells: list[str]) -> Sale | None:
    """What a row says; None if it is none."""
    sale_id, sold_at, city, country, salesman_id, name, product, quantity, amount, currency = cells
    try:
        at = datetime.fromisoformat(sold_at)
        made = Sale(
            sale_id, at, city, country, salesman_id, name, product, int(quantity), Decimal(amount), currency
        )
    except (ValueError, InvalidOperation):
        return None
    is_sound = all((made.sale_id, made.city, made.country, made.salesman_id)) and len(currency) == 3
    return made if is_sound else None


def _replay(files: list[str]) -> dict[str, Sale]:
    """The last word of the files on each id, in the order in which they were put in."""
    said: dict[str, Sale] = {}
    for text in files:
        for cells in list(csv.reader(text.splitlines()))[1:]:
            if len(cells) != len(COLUMNS):
                continue
            if cells[-1] == "REVERSAL":
                said.pop(cells[0], None)
            elif cells[-1] in ("", "SALE") and (sale := _sale(cells[:-1])) is not None:
                said[sale.sale_id] = sale
    return said


def _table(platform: Platform) -> dict[str, Sale]:
    with closing(platform.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute(f"select {', '.join(COLUMNS[:-1])} from public.sales")
        return {row[0]: Sale(*row) for row in cursor.fetchall()}


def _expected_totals(sales: list[Sale]) -> tuple[Totals, Totals]:
    """By city and day, by salesman and 30 days."""
    cities: dict[tuple[object, ...], list[Decimal]] = defaultdict(list)
    salesmen: dict[tuple[object, ...], list[Decimal]] = defaultdict(list)
    for sale in sales:
        day = sale.sold_at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        window = datetime.fromtimestamp(sale.sold_at.timestamp() // WINDOW_SECONDS * WINDOW_SECONDS, UTC)
        cities[day, sale.country, sale.city, sale.currency].append(sale.amount)
        salesmen[window, sale.country, sale.salesman_id, sale.currency].append(sale.amount)
    by_city = {group: (sum(amounts, Decimal(0)), len(amounts)) for group, amounts in cities.items()}
    by_salesman = {group: (sum(amounts, Decimal(0)), len(amounts)) for group, amounts in salesmen.items()}
    return by_city, by_salesman


Payment = tuple[Decimal, str, str, datetime]
# By (sale_id, source): the sale, its status, its payments, whether another source has it too.
Joined = dict[tuple[str, str], tuple[Sale, str, dict[str, Payment], bool]]


def _confirmed(service: Service) -> dict[str, dict[str, Payment]]:
    """By sale and payment, what the service said of it last."""
    found: dict[str, dict[str, Payment]] = defaultdict(dict)
    for sale_id, payment_id, amount, currency, status, at in service.ask(
        "select sale_id, payment_id, amount, currency, status, confirmed_at from confirmations "
        "order by confirmed_at, number"
    ):
        found[sale_id][payment_id] = (Decimal(amount), currency, status, datetime.fromisoformat(at))
    return found


def _status(sale: Sale, payments: Iterable[Payment]) -> str:
    kept = [(amount, currency) for amount, currency, status, _ in payments if status == "CONFIRMED"]
    if not payments:
        return "PENDING"
    if not kept:
        return "REFUNDED"
    same = {currency for _, currency in kept} == {sale.currency}
    return "CONFIRMED" if same and sum(amount for amount, _ in kept) == sale.amount else "AMOUNT_MISMATCH"


def _expected_join(
    table: dict[str, Sale], files: dict[str, Sale], payments: dict[str, dict[str, Payment]]
) -> Joined:
    joined: Joined = {}
    for source, sales in (("postgres", table), ("csv", files)):
        for sale_id, sale in sales.items():
            ambiguous = sale_id in table and sale_id in files
            paid = payments.get(sale_id, {})
            status = "PENDING" if ambiguous else _status(sale, paid.values())
            joined[sale_id, source] = (sale, status, paid, ambiguous)
    return joined


def _join(platform: Platform) -> Joined:
    joined: Joined = {}
    rows = _results(
        platform,
        f"select {', '.join(COLUMNS[:-1])}, source, status, payments, ambiguous from enriched_sales",
    )
    for *sale, source, status, payments, ambiguous in rows:
        paid = {
            one["payment_id"]: (
                Decimal(one["amount"]),
                one["currency"],
                one["status"],
                datetime.fromisoformat(one["confirmed_at"]),
            )
            for one in payments
        }
        assert len(paid) == len(payments), f"a payment is there twice: {payments}"
        joined[sale[0], source] = (Sale(*sale), status, paid, ambiguous)
    return joined


def _assert_same(found: dict[Any, Any], expected: dict[Any, Any], what: str) -> None:
    """As `==`, with the first differences as the message: whole, they are thousands of rows."""
    wrong = [key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)]
    shown = [f"{key}: found {found.get(key)}, expected {expected.get(key)}" for key in wrong[:5]]
    assert not wrong, "\n".join([f"{what}: {len(wrong)} of {len(expected)} differ", *shown])


def _small(choose: random.Random) -> list[list[str]]:
    """Sales, each said twice, some corrected, some taken back, and bad rows."""
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
    """Many rows of few sales: most repeat what was said, some correct it, few take it back."""
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
    both = sorted(paid.keys() & _table(platform).keys())[:60]
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


@pytest.mark.timeout(480)
def test_answers_are_a_plain_recomputation_of_three_sources_while_processes_are_killed(
    platform: Platform, service: Service
) -> None:
    """kill -9 of a run in the middle of a file, a poll in the middle of a page, the city's and the join's worker."""
    choose, files = random.Random(5), []
    large, server = list(_large(choose)), _code_server(platform)
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
        assert _end(platform, _launch_poll(platform)) == "SUCCESS"
    until(lambda: _is_taken(platform), 120, "all files are taken")
    until(lambda: not service.has_more_to_come(), 60, "the service lists every payment")
    _assert_recomputed(platform, service, files)


def _kill_in_the_middle_of_the_large_file(platform: Platform, server: psutil.Process) -> None:
    with closing(platform.connect(RESULTS)) as connection:
        cursor = connection.cursor()

        def is_begun() -> bool:
            cursor.execute("select 1 from csv_sales where sale_id like 'large-%' limit 1")
            return bool(cursor.fetchall())

        until(is_begun, 90, "the first rows of the large file are taken")
    _kill_runs(server)
    assert _copies(platform), "the large file was taken before its run was killed: it has to be larger"


def _kill_in_the_middle_of_a_page(platform: Platform, service: Service, server: psutil.Process) -> None:
    listed = service.listed()
    # Every page takes so long that the second is on its way when the first is joined.
    service.told_to(mode="slow", seconds=10, times=None)
    killed = _launch_poll(platform)
    until(lambda: _payments_joined(platform) > 0, 90, "the first page is joined")
    _kill_runs(server)
    service.told_to(mode="none")
    assert _end(platform, killed) == "FAILURE"
    joined = _payments_joined(platform)
    assert 0 < joined <= PAGE < listed, f"{joined} of {listed} were joined: not killed behind the first page"


def _assert_recomputed(platform: Platform, service: Service, files: list[str]) -> None:
    finished_at = datetime.now(UTC)
    assert _end(platform, _launch_poll(platform)) == "SUCCESS"
    wait_for_watermark(platform, finished_at)
    until(
        lambda: (_joined_up_to(platform) or finished_at) > finished_at,
        90,
        f"all is joined up to {finished_at}",
    )
    table, said, payments = _table(platform), _replay(files), _confirmed(service)
    by_city, by_salesman = _expected_totals([*table.values(), *said.values()])
    _assert_same(totals(platform, RESULTS, CITY_RESULTS), by_city, "totals by city")
    _assert_same(totals(platform, RESULTS, SALESMAN_RESULTS), by_salesman, "totals by salesman")
    joined = _expected_join(table, said, payments)
    _assert_same(_join(platform), joined, "sales joined with their payments")
    # All that there is to be seen was there to be seen.
    assert {status for _, status, _, _ in joined.values()} == {
        "PENDING", "CONFIRMED", "AMOUNT_MISMATCH", "REFUNDED"
    }  # fmt: skip
    assert sum(ambiguous for *_, ambiguous in joined.values()) == 40
    assert any(source == "csv" and status == "CONFIRMED" for (_, source), (_, status, _, _) in joined.items())
