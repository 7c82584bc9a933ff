"""The design's snapshot: without locks, while writes go on, resumable."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg2
import pytest

from sources.postgres import snapshot
from tests.support.capture import Sales

HISTORY = """
insert into public.sales
select 'h' || md5(n::text), '2026-01-01'::timestamptz + n * interval '1 minute', 'City ' || n % 9, 'DE', 's' || n % 50,
       'Name ' || n % 50, 'P' || n % 20, 1 + n % 5, (n % 1000) / 7.0, 'EUR'
from generate_series(1, {}) n
"""
INSERT = (
    "insert into public.sales values (%s, now(), 'Berlin', 'DE', 's1', 'Anna', 'TV', %s, %s, 'EUR') "
    "on conflict do nothing"
)


class Writers:
    """Several sessions that insert, update, delete and rename sales, some in long transactions, some rolled back."""

    def __init__(self, sales: Sales, count: int) -> None:
        self._sales = sales
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(seed,), daemon=True) for seed in range(count)
        ]
        self.transactions = 0
        self.errors: list[BaseException] = []

    def _write(self, seed: int) -> None:
        try:
            self._write_until_stopped(random.Random(seed), seed)
        except BaseException as error:
            self.errors.append(error)

    def _write_until_stopped(self, dice: random.Random, seed: int) -> None:
        connection = self._sales.connect()
        cursor = connection.cursor()
        names = 0
        while not self._stop.is_set():
            cursor.execute("begin")
            try:
                for _ in range(dice.choice((1, 1, 1, 3, 20))):
                    what = dice.random()
                    # Anywhere in the order of the keys: before, within and behind what a snapshot has read.
                    key = dice.choice("0123456789abcdef") + dice.choice("0123456789abcdef")
                    if what < 0.4:
                        names += 1
                        cursor.execute(
                            INSERT,
                            (f"h{key}-{seed}-{names}", dice.randint(1, 9), dice.randint(1, 99_999) / 100),
                        )
                    elif what < 0.7:
                        cursor.execute(
                            _ONE.format("update public.sales set amount = amount + 0.01, city = 'Ulm'"),
                            (f"h{key}",),
                        )
                    elif what < 0.85:
                        cursor.execute(_ONE.format("delete from public.sales"), (f"h{key}",))
                    else:
                        names += 1
                        cursor.execute(
                            _ONE.format(f"update public.sales set sale_id = 'h{key[::-1]}-r{seed}-{names}'"),
                            (f"h{key}",),
                        )
                    if dice.random() < 0.005:
                        # A long transaction: chunks are read while it is open.
                        time.sleep(0.5)
                cursor.execute("rollback" if dice.random() < 0.05 else "commit")
                self.transactions += 1
            except (psycopg2.errors.DeadlockDetected, psycopg2.errors.UniqueViolation):
                cursor.execute("rollback")
        connection.close()

    @contextmanager
    def writing(self) -> Iterator[Writers]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(60)
        assert not self.errors, self.errors


_ONE = "{} where sale_id = (select sale_id from public.sales where sale_id > %s order by sale_id limit 1)"


def test_snapshot_while_writes_go_on(sales: Sales, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signed sum over the log is the table, to the last decimal, whatever was written meanwhile."""
    monkeypatch.setattr(snapshot, "CHUNK_ROWS", 200)
    sales.run(HISTORY.format(6_000))
    with Writers(sales, 4).writing() as writers, sales.capturing() as running:
        sales.wait(lambda: sales.phase() == "done", running)
        after = writers.transactions
        sales.wait(lambda: writers.transactions > after + 50, running)
        writers._stop.set()
        for thread in writers._threads:
            thread.join(60)
        sales.wait(sales.is_equal, running)
    assert sales.seqs_are_unique()
    assert {net for net, _, _ in sales.totals_of_log().values()} == {1}
    assert sales.ranges() == 0


def is_further(sales: Sales, ranges: int) -> bool:
    return sales.ranges() > ranges or sales.phase() == "done"


def test_snapshot_resumes_after_kill(sales: Sales) -> None:
    """kill -9 again and again, each soon after a range was finished: it stays finished, nothing is lost or doubled."""
    sales.run(HISTORY.format(4_000))
    kills = 0
    with Writers(sales, 2).writing() as writers:
        while sales.phase() != "done":
            finished = sales.ranges()
            # Slow enough that the first ranges are seen here while others are to come.
            process = sales.process({"TEST_CHUNK_ROWS": "1500", "TEST_CHUNK_SECONDS": "1"})
            try:
                sales.wait(partial(is_further, sales, finished))
                time.sleep(random.uniform(0, 0.3))
            finally:
                process.kill()
                process.wait()
            kills += 1
            assert sales.phase() == "done" or sales.ranges() > finished
    assert kills > 1
    assert writers.transactions > 0
    with sales.capturing() as running:
        sales.wait(sales.is_equal, running)
    assert sales.seqs_are_unique()


def test_a_change_between_any_two_chunks_counts_once(sales: Sales, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the key column has a collation of its own: the database decides in which range a key lies."""
    monkeypatch.setattr(snapshot, "CHUNK_ROWS", 3)
    sales.run(
        'alter table public.sales alter sale_id type varchar(9) collate "POSIX"',
        "insert into public.sales select k, now(), 'Berlin', 'DE', 's1', 'Anna', 'TV', 1, 1, 'EUR' "
        "from unnest(array['a','B','ä','Z','z','A','b','Ä','1','10','2','ß','ss','_','-']) k",
    )
    taken: list[int] = []
    read = snapshot.Snapshot.read

    def reading(self: snapshot.Snapshot) -> snapshot.Chunk | None:
        # After every chunk a change to every row, in ranges read and pending.
        sales.run("update public.sales set amount = amount + 1")
        chunk = read(self)
        taken.append(len(self.ranges))
        return chunk

    monkeypatch.setattr(snapshot.Snapshot, "read", reading)
    with sales.capturing() as running:
        sales.wait(lambda: sales.phase() == "done" and sales.is_equal(), running)
    assert len(taken) > 4
    assert sales.seqs_are_unique()


def test_a_chunk_ends_after_so_many_bytes(sales: Sales, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 64 kB: a chunk holds as many as its limit allows, one at least, and never what fills a queue."""
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 200_000)
    sales.run(
        "insert into public.sales select 'k' || lpad(n::text, 3, '0'), now(), 'Bonn', 'DE', 's1', 'Anna', "
        "(select string_agg(md5(n || '/' || m), '') from generate_series(1, case n when 7 then 8000 else 2000 end) m), "
        "1, 1, 'EUR' from generate_series(1, 20) n"
    )
    chunks: list[int] = []
    read = snapshot.Snapshot.read

    def reading(self: snapshot.Snapshot) -> snapshot.Chunk | None:
        # To a row that is read and to one that is not: the ranges have the keys that their chunks ended with.
        sales.run(
            "update public.sales set amount = amount + 1 where sale_id in ('k001', 'k004', 'k005', 'k020')"
        )
        chunk = read(self)
        if chunk is not None:
            chunks.append(len(chunk.rows))
        return chunk

    monkeypatch.setattr(snapshot.Snapshot, "read", reading)
    with sales.capturing() as running:
        sales.wait(lambda: sales.phase() == "done" and sales.is_equal(), running)
    # The seventh row is larger than the limit: the chunk that comes to it ends with it.
    assert chunks == [4, 3, 4, 4, 4, 1]
    assert sales.seqs_are_unique()
