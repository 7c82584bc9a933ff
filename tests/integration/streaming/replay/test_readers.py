"""Readers of the API while generations are promoted under them: one generation or the other, never an error."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Engine, text

from contracts.differences import changes
from stack.embedded import Embedded
from streaming import pipelines
from streaming.replay import difference, promotion
from streaming.replay.difference import Difference
from streaming.replay.errors import Busy
from tests.integration.streaming.replay.live_process import LIMIT, versions
from tests.support.live_harness import LiveHarness
from tests.support.pipeline_harness import ROOT, START, PipelineHarness, Totals
from tests.support.results import BarrierHold, ResultsFixture, city
from tests.support.waiting import wait_until

pytestmark = pytest.mark.soak

PIPELINE = "top-sales-by-city"
CITIES = [f"c{n}" for n in range(20)]
READERS, ROUNDS, APIS = 4, 12, 2
# The API ends connections that were silent for 5 s, as a reader on a busy machine may have been.
KEPT_SECONDS = 1.0
# As the harness makes them up.
GROUPS = list(itertools.product(("DE", "FR", "US"), range(40), ("EUR", "USD")))
# More than all others of a group come to.
IMPOSSIBLE = Decimal(10_000_000)
NOTHING = {"sales_count": 0}
SOLD = {"operation": "SALE", "quantity": 1}


@dataclass
class Applying:
    """A sink for both generations: one apply gives all cities of a generation one total, that ends in its number."""

    engine: Engine
    resting: threading.Lock = field(default_factory=threading.Lock)

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            for number in (1, 2):
                with self.resting, self.engine.begin() as connection:
                    apply = connection.scalar(
                        text(
                            "UPDATE generations SET apply_number = apply_number + 1 WHERE number = :n "
                            "RETURNING apply_number"
                        ),
                        {"n": number},
                    )
                    connection.execute(
                        text("UPDATE city_totals SET total = :total WHERE generation = :n"),
                        {"total": f"{apply}.{number}", "n": number},
                    )

    @contextmanager
    def held(self, *args: Any) -> Iterator[Any]:
        """At a barrier nothing is applied."""
        with self.resting, BarrierHold()(*args) as barrier:
            yield barrier


@contextmanager
def serving(command: Sequence[str], results: URL, **more: str) -> Iterator[int]:
    """An API process, with the role that only reads; gives its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    environment = os.environ | {
        "ELECTRORED_RESULTS_DB_URL": results.render_as_string(hide_password=False),
        "ELECTRORED_API_PORT": str(port),
        **more,
    }
    with subprocess.Popen(
        [sys.executable, *command], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            while "running on" not in (line := process.stderr.readline()):
                assert line, "it ended before it served"
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield port
            assert process.poll() is None, "it ended by itself"
        finally:
            process.terminate()
            process.wait(60)


@dataclass
class Checker:
    """One answer per version, for every client and from every process; versions never go back."""

    question: str
    # Raises AssertionError if the answer is of more than the one generation that it names.
    check: Callable[[dict[str, Any]], None]
    # Between two questions of a reader.
    pause: float = 0.0
    answers: int = 0
    # Which generation was shown after a promotion.
    shown: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    _bodies: dict[str, bytes] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, port: int, stop: threading.Event) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        last: tuple[int, ...] = (0, 0)
        seen, count, answered_at = "", 0, time.monotonic()
        while not stop.wait(self.pause):
            if time.monotonic() > answered_at + KEPT_SECONDS:
                # The next request opens another one.
                connection.close()
            connection.request("GET", self.question, headers={"If-None-Match": seen} if count % 2 else {})
            answer = connection.getresponse()
            body, etag, answered_at = answer.read(), answer.headers["etag"], time.monotonic()
            assert answer.status in (200, 304), body
            version = tuple(int(part) for part in etag.strip('"').split("-")[:2])
            assert version >= last, f"{version} after {last}"
            last, count = version, count + 1
            if answer.status == 304:
                assert etag == seen
            else:
                self._look(version[0], etag, body)
                seen = etag
        connection.close()
        return count

    def _look(self, promotion: int, etag: str, body: bytes) -> None:
        answer = json.loads(body)
        self.check(answer)
        with self._lock:
            assert self._bodies.setdefault(etag, body) == body, "two answers under one ETag"
            self.shown[promotion].add(answer["generation"])
            self.answers += 1


def one_total(answer: dict[str, Any]) -> None:
    totals = {row["total"] for row in answer["data"]}
    assert len(answer["data"]) == len(CITIES)
    assert len(totals) == 1, f"a mix: {totals}"
    assert totals.pop().endswith(f".{answer['generation']}000"), "rows of another generation than it says"


def test_no_reader_sees_a_mix_or_an_error_while_generations_are_promoted_and_rolled_back(
    stack: Embedded, engine: Engine
) -> None:
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    for number in (1, 2):
        filled.write(number, [city(name, f"0.{number}") for name in CITIES])
    applying, stop = Applying(engine), threading.Event()
    checker = Checker("/api/v1/top-sales/by-city?limit=1000", one_total)
    reader = stack.postgres(engine.url.database or "", "electrored_reader")
    with serving(["-m", "api"], reader) as port, ThreadPoolExecutor(READERS + 1) as threads:
        readers = [threads.submit(checker.read, port, stop) for _ in range(READERS)]
        writer = threads.submit(applying.run, stop)
        try:
            for _ in range(ROUNDS):
                seen = difference.take(stack.kafka, engine, PIPELINE, 2, hold=applying.held)
                promotion.promote(
                    stack.kafka,
                    engine,
                    PIPELINE,
                    2,
                    fingerprint=seen.fingerprint,
                    approved_by="a test",
                    hold=applying.held,
                )
                promotion.rollback(
                    stack.kafka,
                    engine,
                    PIPELINE,
                    1,
                    reason="a test",
                    approved_by="a test",
                    hold=applying.held,
                )
        finally:
            stop.set()
        writer.result()
        counts = [reader.result() for reader in readers]
    assert filled.pointer() == (1, 1 + 2 * ROUNDS)
    assert set().union(*checker.shown.values()) == {1, 2}, "both were read"
    assert all(len(generations) == 1 for generations in checker.shown.values())
    assert min(counts) > ROUNDS


# -- everything real


@dataclass
class Shop:
    """Sales of one pipeline that come in all the time, some of which its first version takes for impossible."""

    live: LiveHarness
    # Asks the one thread that sells for impossible ones: a source's numbers only grow.
    asked: threading.Event = field(default_factory=threading.Event)

    def sales(self, count: int) -> list[dict[str, Any]]:
        """No reversals: a group that comes to no sale is hidden, with the money that may be left in it."""
        events = [self.live.harness._event() for _ in range(count)]
        return [event | SOLD | {"amount": abs(event["amount"])} for event in events]

    def impossible(self) -> list[dict[str, Any]]:
        """One in every group of the requested day, so that each row shows which version made it."""
        made = []
        for event, group in zip(self.sales(len(GROUPS)), GROUPS, strict=True):
            country, city, currency = named(group)
            made.append(
                event
                | {"sold_at": START, "recorded_at": START, "amount": IMPOSSIBLE}
                | {"country": country, "city": city, "currency": currency}
            )
        return made

    def sell(self, stop: threading.Event) -> None:
        while not stop.wait(0.05):
            self.live.feed(self.sales(20))
            if self.asked.is_set():
                self.asked.clear()
                self.live.feed(self.impossible())

    def mended(self) -> list[Decimal]:
        """What the mended version has counted for every group of the day."""
        rows = self.live.rows(2)
        return [rows.get((START.date().isoformat(), *named(group)), (Decimal(0), 0))[0] for group in GROUPS]

    def damage(self, found: Difference) -> set[tuple[Any, ...]]:
        """What differs by how much: every row of the difference."""
        with self.live.harness.results.connect() as connection:
            return {
                (
                    row.window_start,
                    *(row.group[name] for name in ("country", "city", "currency")),
                    row.change,
                    (row.after or NOTHING)["sales_count"] - (row.before or NOTHING)["sales_count"],
                )
                for row in changes(connection, found.shape, found.id)
            }


def asked_again(work: Callable[[], Any]) -> Any:
    """What it gives; on a busy machine it may be refused for what passes by itself."""

    def once() -> Any:
        try:
            return work()
        except Busy:
            return None

    return wait_until(once)


def of_one_version(answer: dict[str, Any]) -> None:
    """Only the mended version, generation 2, has counted what the other took for impossible."""
    counted = {Decimal(row["total"]) > IMPOSSIBLE / 2 for row in answer["data"]}
    assert counted == {answer["generation"] == 2}, f"g{answer['generation']} shows a mix"
    assert answer["generation"] == 1 or len(answer["data"]) == len(GROUPS)


@pytest.fixture
def shop(live: LiveHarness, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A worker and the sink in processes; the pipeline has a defect, and its mended version is there."""
    harness = live.harness
    broken, mended = versions(harness.name, harness.suffix)
    monkeypatch.setitem(pipelines.PIPELINES, (mended.name, 1), broken)
    monkeypatch.setitem(pipelines.PIPELINES, (mended.name, 2), mended)
    monkeypatch.setitem(pipelines.CURRENT, mended.name, 2)
    processes = [started(role, live) for role in ("worker", "sink")]
    try:
        yield Shop(live)
        assert [running.poll() for running in processes] == [None, None], "one ended by itself"
    finally:
        for running in processes:
            running.terminate()
        ended = [running.wait(60) for running in processes]
    assert ended == [0, 0]


def started(role: str, live: LiveHarness) -> subprocess.Popen[bytes]:
    harness = live.harness
    environment = os.environ | {
        "ELECTRORED_KAFKA_BOOTSTRAP": harness.kafka.kafka_bootstrap,
        "ELECTRORED_SCHEMA_REGISTRY_URL": harness.kafka.schema_registry_url,
        "ELECTRORED_RESULTS_DB_URL": harness.results_url,
        "ELECTRORED_LOG_LEVEL": "WARNING",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen([sys.executable, *process(role, live)], cwd=ROOT, env=environment)


def process(role: str, live: LiveHarness) -> list[str]:
    script = str(Path(__file__).parent / "live_process.py")
    return [script, role, live.harness.name, live.harness.suffix, str(live.folder / "worker")]


def test_a_defect_is_mended_and_promoted_back_and_forth_under_readers_and_sales(
    stack: Embedded, engine: Engine, shop: Shop
) -> None:
    live, harness = shop.live, shop.live.harness
    live.feed(shop.impossible())
    live.feed(shop.sales(1_000))
    day = START.date().isoformat()
    checker = Checker(f"/api/v1/top-sales/by-city?date={day}&limit=1000", of_one_version, pause=0.03)
    reader, stop = stack.postgres(engine.url.database or "", "electrored_reader"), threading.Event()

    def compared() -> Difference:
        found: Difference = asked_again(lambda: live.compare(2))
        # Sales come in all the while; whatever the position was, this is what differs.
        assert shop.damage(found) == {(START, *named(group), 2 * IMPOSSIBLE, 2) for group in GROUPS}
        return found

    def seen(promotion: int) -> None:
        """Readers have read a while what a promotion shows."""
        enough = checker.answers + 100
        wait_until(lambda: promotion in checker.shown and checker.answers > enough)

    with ExitStack() as cleanup:
        ports = [
            cleanup.enter_context(serving(process("api", live), reader, PYTHONPATH=str(ROOT)))
            for _ in range(APIS)
        ]
        wait_until(lambda: live.rows(1) == without_the_impossible(harness), what="all of g1")
        threads = cleanup.enter_context(ThreadPoolExecutor(READERS + 1))
        cleanup.callback(stop.set)
        readers = [threads.submit(checker.read, ports[n % APIS], stop) for n in range(READERS)]
        selling_ends = threading.Event()
        cleanup.callback(selling_ends.set)
        selling = threads.submit(shop.sell, selling_ends)
        seen(1)
        with started("replay", live) as replaying:
            assert replaying.wait(120) == 0
        assert live.state(2) == "candidate"
        # What the defect does goes on while the mended one waits.
        shop.asked.set()
        # Where a generation that has counted both is held, all of the damage is.
        wait_until(lambda: min(shop.mended()) > 2 * IMPOSSIBLE - IMPOSSIBLE / 2, what="both of every group")
        asked_again(partial(live.promote, 2, compared().fingerprint))
        seen(2)
        asked_again(partial(live.rollback, 1))
        seen(3)
        asked_again(partial(live.promote, 2, compared().fingerprint))
        seen(4)
        selling_ends.set()
        selling.result(60)
        live.settled(2)
        wait_until(lambda: live.rows(1) == without_the_impossible(harness), what="all of g1")
        stop.set()
        counts = [read.result(60) for read in readers]
    assert dict(checker.shown) == {1: {1}, 2: {2}, 3: {1}, 4: {2}}
    assert min(counts) > 50


def named(group: tuple[str, int, str]) -> tuple[str, str, str]:
    country, number, currency = group
    return country, f"city-{number}", currency


def without_the_impossible(harness: PipelineHarness) -> Totals:
    """What the defective version comes to."""
    all_of = harness.events
    harness.events = [event for event in all_of if abs(event["amount"]) < LIMIT]
    try:
        return harness.expected()
    finally:
        harness.events = all_of
