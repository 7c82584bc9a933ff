"""Metrics are served on the loopback if a port is set, and never stop a process."""

from __future__ import annotations

import socket

from contracts.settings import LogSettings
from observability import metrics


def test_without_a_port_nothing_listens() -> None:
    assert metrics.serve(LogSettings(metrics_port=None)) is None


def test_a_taken_port_is_no_end() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert metrics.serve(LogSettings(metrics_port=taken.getsockname()[1])) is None
