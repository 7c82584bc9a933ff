"""Metrics are served on the loopback if a port is set, and never stop a process."""

from __future__ import annotations

import socket
import urllib.request

from prometheus_client import Counter

from contracts.settings import LogSettings
from observability import metrics
from stack.ports import free


def test_what_a_process_counts_is_served() -> None:
    seen = Counter("electrored_test_events", "Counted by a test.")
    seen.inc(3)
    port = metrics.serve(LogSettings(metrics_port=free(1)[0]))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert b"electrored_test_events_total 3.0" in answer.read()


def test_without_a_port_nothing_listens() -> None:
    assert metrics.serve(LogSettings(metrics_port=None)) is None


def test_a_taken_port_is_no_end() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert metrics.serve(LogSettings(metrics_port=taken.getsockname()[1])) is None
