"""The sink's metrics of a commit: rows, and how long the oldest event took from its source's commit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import REGISTRY

from streaming.engine.windows import to_micros
from streaming.sink.postgres import count_commit

SOURCE_COMMIT = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)
LATENCY = "electrored_end_to_end_latency_seconds"


def buckets_of(flow: str) -> dict[str, float]:
    """How many took at most so long, by bucket."""
    return {
        sample.labels["le"]: sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == f"{LATENCY}_bucket" and sample.labels["flow"] == flow
    }


@pytest.mark.parametrize(
    ("took", "above", "within"),
    [(0.013, None, "0.02"), (0.25, "0.2", "0.3"), (42.0, "30.0", "60.0"), (7200.0, "3600.0", "+Inf")],
)
def test_latency_is_from_the_commit_at_the_source_to_that_of_the_row(
    took: float, above: str | None, within: str
) -> None:
    flow = f"latency-{took}"
    committed_at = SOURCE_COMMIT + timedelta(seconds=took)
    count_commit(flow, 3, to_micros(SOURCE_COMMIT), committed_at.timestamp())
    buckets = buckets_of(flow)
    assert buckets[within] == 1
    assert above is None or buckets[above] == 0
    assert REGISTRY.get_sample_value(f"{LATENCY}_count", {"flow": flow}) == 1
    assert REGISTRY.get_sample_value(f"{LATENCY}_sum", {"flow": flow}) == pytest.approx(took, abs=1e-5)
    assert REGISTRY.get_sample_value("electrored_events_total", {"flow": flow}) == 3


def test_a_source_whose_clock_is_ahead_takes_no_time() -> None:
    ahead = SOURCE_COMMIT + timedelta(seconds=5)
    count_commit("ahead", 1, to_micros(ahead), SOURCE_COMMIT.timestamp())
    assert buckets_of("ahead")["0.02"] == 1
    assert REGISTRY.get_sample_value(f"{LATENCY}_sum", {"flow": "ahead"}) == 0


def test_what_counts_no_event_of_a_known_age_has_no_latency() -> None:
    count_commit("marks", 0, None, SOURCE_COMMIT.timestamp())
    assert buckets_of("marks") == {}
    assert REGISTRY.get_sample_value("electrored_events_total", {"flow": "marks"}) == 0
