"""Row 8: a lag that capture has not measured lately is no figure, in Prometheus as in `electrored status`."""

from __future__ import annotations

import pytest

from contracts.settings import LogSettings
from observability import metrics
from sources.postgres import lag
from stack import probes
from stack.ports import free


def test_row_8_an_old_lag_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free(1)
    assert metrics.serve(LogSettings(metrics_port=port)) == port

    def shown() -> float | None:
        flow = probes.flow(port)
        assert flow is not None
        return flow.lag_bytes

    lag.LAG.set(7)
    assert shown() == 7
    monkeypatch.setattr(lag, "LAG_SECONDS", 0.0)
    assert shown() is None
