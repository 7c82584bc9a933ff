"""A wait is reported once, keeps its beginning, and is gone with its end."""

from __future__ import annotations

import json
import threading
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from contracts.settings import LogSettings
from observability import metrics
from observability.waits import TURN_SECONDS, WAITS, Waits
from stack.ports import free


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Both clocks of a wait, which a test moves."""
    now = [100.0]
    monkeypatch.setattr("observability.waits.time.time", lambda: now[0])
    monkeypatch.setattr("observability.waits.time.monotonic", lambda: now[0])
    return now


def test_a_wait_keeps_its_beginning_and_takes_the_newest_sentence(now: list[float]) -> None:
    waits = Waits()
    waits.begin("postgres", "connection refused")
    now[0] = 160.0
    waits.begin("registry", "no answer within 10 s")
    waits.begin("postgres", "password authentication failed")
    assert [(w.on, w.detail, w.since) for w in waits.current()] == [
        ("postgres", "password authentication failed", 100.0),
        ("registry", "no answer within 10 s", 160.0),
    ]
    waits.end("postgres")
    waits.end("postgres")
    assert [w.on for w in waits.current()] == ["registry"]


def test_a_wait_ends_with_its_block_even_if_that_fails() -> None:
    waits = Waits()

    def fail() -> None:
        with waits.during("kafka", "no broker answers"):
            assert [w.on for w in waits.current()] == ["kafka"]
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert waits.current() == []


def test_each_reporter_ends_its_own_wait_and_the_metric_shows_the_longest(now: list[float]) -> None:
    registry, waits = CollectorRegistry(), Waits()
    registry.register(waits)
    waits.begin("kafka", "combine", "g1.combine")
    now[0] = 160.0
    waits.begin("kafka", "merge", "g1.merge")
    assert b'_timestamp_seconds{on="kafka"} 100.0\n' in generate_latest(registry)
    waits.end("kafka", "g1.combine")
    assert [(w.detail, w.since) for w in waits.current()] == [("merge", 160.0)]
    waits.end("kafka", "g1.merge")
    assert waits.current() == []


def test_a_loop_that_turns_no_more_is_shown_as_such(now: list[float]) -> None:
    """Unless it is known what its thread waits for since: then that is why."""
    waits = Waits()
    waits.turn("g1.combine")
    waits.turn("g1.merge")
    now[0] += TURN_SECONDS - 1
    waits.turn("g1.merge")
    assert waits.current() == []
    now[0] += 2
    (wait,) = waits.current()
    assert (wait.on, wait.since) == ("loop", 100.0)
    assert wait.detail.startswith("no turn of g1.combine: ")
    with waits.during("kafka", "no broker answers"):
        assert [w.on for w in waits.current()] == ["kafka"]
    now[0] += TURN_SECONDS
    assert [w.detail.split(":")[0] for w in waits.current()] == ["no turn of g1.combine, g1.merge"]
    waits.turn("g1.merge")
    waits.leave("g1.combine")
    assert waits.current() == []


def test_neither_a_hint_nor_what_another_loop_waits_for_hides_a_loop_that_hangs(now: list[float]) -> None:
    """A hint, a wait before the last `run_once`, Kafka in another thread; the most serious is the first."""
    waits = Waits()
    waits.begin("inbox", "notes.txt")
    waits.begin("transaction", "of pid 12", "g1.combine")
    now[0] += 1
    waits.turn("g1.combine")
    now[0] += TURN_SECONDS + 1
    done = threading.Event()
    turned = threading.Event()

    def other() -> None:
        waits.turn("g1.merge")
        waits.begin("kafka", "no broker answers", "g1.merge, transactions")
        turned.set()
        assert done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert turned.wait(10)
    assert [(w.on, w.kind) for w in waits.current()] == [
        ("loop", "stall"), ("transaction", "wait"), ("kafka", "wait"), ("inbox", "hint"),
    ]  # fmt: skip
    assert [one["kind"] for one in json.loads(waits.as_json())] == ["stall", "wait", "wait", "hint"]
    # Of another thread, which is no loop's: it watches the process, as capture's watcher does.
    watcher = threading.Thread(target=waits.begin, args=("transaction", "PostgreSQL waits for pid 12"))
    watcher.start()
    watcher.join()
    assert [w.on for w in waits.current()] == ["transaction", "kafka", "transaction", "inbox"]
    done.set()
    thread.join()


def test_a_wait_is_a_series_only_while_it_lasts() -> None:
    registry, waits = CollectorRegistry(), Waits()
    registry.register(waits)
    name = b'electrored_waiting_since_timestamp_seconds{on="transaction"}'
    assert name not in generate_latest(registry)
    with waits.during("transaction", "of pid 12"):
        assert name in generate_latest(registry)
    assert name not in generate_latest(registry)


def test_waits_are_served_beside_the_metrics() -> None:
    port = metrics.serve(LogSettings(metrics_port=free(1)[0]))
    with WAITS.during("registry", "no answer from http://registry"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/waits", timeout=5) as answer:
            (wait,) = json.load(answer)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert b'electrored_waiting_since_timestamp_seconds{on="registry"}' in answer.read()
    assert (wait["on"], wait["detail"]) == ("registry", "no answer from http://registry")
