"""Managed services accept the topics' settings."""

from __future__ import annotations

import pytest

from contracts.topics import OPENLINEAGE_EVENTS, PUBLIC, GenerationTopics, Topic

# Confluent Cloud's; those of MSK with tiered storage are 48 MiB and the same time.
LEAST_SEGMENT_BYTES = 52_428_800
LEAST_SEGMENT_MS = 600_000


@pytest.mark.parametrize(
    "topic",
    [*PUBLIC, OPENLINEAGE_EVENTS, *GenerationTopics("top-sales-by-city", 1).all],
    ids=lambda topic: str(topic.name),
)
def test_no_segment_is_smaller_than_managed_services_take(topic: Topic) -> None:
    assert int(topic.config.get("segment.bytes", LEAST_SEGMENT_BYTES)) >= LEAST_SEGMENT_BYTES
    assert int(topic.config.get("segment.ms", LEAST_SEGMENT_MS)) >= LEAST_SEGMENT_MS
