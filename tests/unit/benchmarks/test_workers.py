"""What is counted of worker processes: from the first commit of the last of them to the last commit of all."""

from __future__ import annotations

import pytest

from benchmarks.workers import counted

# Seconds, CPU-seconds, events: the second process commits 2 s after the first one.
FIRST = [(0.0, 1.0, 0.0), (1.0, 2.0, 100.0), (3.0, 5.0, 500.0), (5.0, 6.0, 600.0), (9.0, 9.0, 600.0)]
SECOND = [(0.0, 1.0, 0.0), (1.0, 1.5, 0.0), (3.0, 2.0, 50.0), (5.0, 4.0, 300.0), (9.0, 9.0, 300.0)]
# Up to the last commit of all.
KAFKA = [(0.0, 10.0, 0.0), (3.0, 12.0, 0.0), (5.0, 13.0, 0.0)]


def test_neither_the_start_nor_the_rest_of_a_process_is_counted() -> None:
    run = counted([FIRST, SECOND], KAFKA, 100.0)
    assert run.seconds == 2.0
    assert run.events == (600.0 - 500.0) + (300.0 - 50.0)
    assert run.cpu_seconds == (6.0 - 5.0) + (4.0 - 2.0)
    assert run.kafka_cpu_seconds == 1.0
    assert run.cpu_per_million == pytest.approx(3.0 / 350.0 * 1_000_000)


def test_a_process_that_got_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="got nothing to read"):
        counted([FIRST, [(0.0, 1.0, 0.0), (5.0, 1.0, 0.0)]], KAFKA, 100.0)


def test_a_log_of_one_commit_is_an_error() -> None:
    with pytest.raises(ValueError, match="one commit"):
        counted([[(0.0, 1.0, 0.0), (3.0, 2.0, 100.0), (5.0, 3.0, 100.0)]], KAFKA, 100.0)
