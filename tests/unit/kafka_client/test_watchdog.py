"""A call into librdkafka that never returns ends the process (its issue 5456); an ordinary one does not."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from confluent_kafka import Producer

from kafka_client import watchdog
from kafka_client.errors import Fatal
from streaming.engine.step import OutRecord
from streaming.engine.transactions import Transactions
from tests.support.python_process import run_python

# A producer that answers every call but the one named on the command line, which never comes back.
STUCK = """
import sys, threading
from observability import logs
from kafka_client import watchdog
from streaming.engine.transactions import Transactions

class Producer:
    def __getattr__(self, name):
        return lambda *_: threading.Event().wait() if name == sys.argv[1] else None

watchdog.TICK_SECONDS = 0.01
logs.configure("test")
over = Transactions(Producer, "city.publisher")
over.commit([], {}, None)
over.close()
print("came back")
"""


@pytest.mark.parametrize(
    "call", ["init_transactions", "send_offsets_to_transaction", "commit_transaction", "purge"]
)
def test_a_call_that_does_not_come_back_ends_the_process_with_a_line(call: str) -> None:
    done = run_python("-c", STUCK, call)
    assert done.returncode == 1, done.stderr
    assert "does not return" in done.stderr
    assert "city.publisher" in done.stderr
    assert "Traceback" not in done.stderr


def test_calls_that_come_back_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: each is counted on its own."""
    ended, ticks = threading.Event(), threading.Semaphore(0)

    def tick(_: float) -> None:
        ticks.release()
        # The real one lets go of the interpreter too.
        threading.Event().wait(0.001)

    monkeypatch.setattr(watchdog, "time", SimpleNamespace(sleep=tick))
    monkeypatch.setattr(watchdog, "_end", lambda _: ended.set())
    dog = watchdog._Watchdog()
    for _ in range(3 * watchdog.STUCK_TICKS):
        with dog.watching("flow"):
            assert ticks.acquire(timeout=10)
    assert not ended.is_set()
    with dog.watching("flow"):
        assert ended.wait(10), "the same dog sees the one that does not"


def test_a_producer_is_let_go_although_the_broker_is_away() -> None:
    """On librdkafka's own broker, which lives in another producer and dies with it."""
    broker = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    (address,) = (f"{b.host}:{b.port}" for b in broker.list_topics(timeout=10).brokers.values())
    config = {"bootstrap.servers": address, "transactional.id": "id", "log_level": 0}

    over = Transactions(lambda: Producer(config), "flow")
    producer = over._producer
    assert producer is not None
    producer.begin_transaction()
    producer.produce("topic", b"v", b"k")
    producer.flush(10)
    producer.produce("topic", b"v", b"k")
    del broker, producer
    closing = threading.Thread(target=over.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive(), "its own close would wait for the broker"
    with pytest.raises(Fatal, match="given up"):
        over.commit([OutRecord("topic", 0, b"k", b"v")], {}, None)
