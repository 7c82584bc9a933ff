"""Row 22: whatever stands on the topic of lineage that is no event of a run is passed over."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineage.store import _row

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 100_000,
        b'{"run": {}, "job": []}',
        b'{"run": {"runId": "r", "facets": []}, "job": {"name": "n", "namespace": "s"}, "eventTime": "1"}',
    ],
    ids=lambda value: repr(value)[:20],
)
def test_row_22_what_is_no_event_is_passed_over(value: bytes | None) -> None:
    assert _row(value, NOW) is None


@given(st.binary(max_size=60))
def test_row_22_no_bytes_raise_anything(value: bytes) -> None:
    assert _row(value, NOW) is None
