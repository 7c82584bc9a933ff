"""A call into librdkafka that never returns is noticed (its issue 5456); an ordinary one is not."""

from __future__ import annotations

import threading
import time
from typing import Any, cast

import pytest
from confluent_kafka import Producer

from streaming.engine import transactions
from streaming.engine.transactions import Transactions


class SilentProducer:
    """Answers everything but `send_offsets_to_transaction`, which waits until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def send_offsets_to_transaction(self, *_: Any) -> None:
        assert self.released.wait(30)

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def test_a_call_that_does_not_come_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "STUCK_SECONDS", 0.05)
    producer = SilentProducer()
    made = Transactions(lambda: cast(Producer, producer), "flow")
    assert not made.is_stuck
    committing = threading.Thread(target=made.commit, args=([], {}, None))
    committing.start()
    deadline = time.monotonic() + 10
    while not made.is_stuck:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    producer.released.set()
    committing.join(10)
    assert not made.is_stuck
