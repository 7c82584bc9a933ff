"""A position comes back as it was written, and one of a former version without what was not kept then."""

from __future__ import annotations

import json

from sources.postgres.capture_state import CaptureState
from sources.postgres.database import Identity
from sources.postgres.history import StreamPosition, Witness
from sources.postgres.pgoutput import Begin
from sources.postgres.shape import Column, Shape

SHAPE = Shape(16_400, {"amount": Column(9, "numeric(18,4)", 1700, "745", 0, False, False, 0)}, {"a": 2})
LAST, CUT = Begin(40, 10**15, 9), Begin(120, 10**15, 9)
STATE = CaptureState(
    Identity("7", 1), "s", StreamPosition(100, 120, 2), "done", witness=Witness(LAST, CUT), shape=SHAPE
)


def test_a_position_comes_back() -> None:
    back = CaptureState.from_json(json.loads(json.dumps(STATE.to_json())))
    assert back == STATE
    assert back.shape.quantities == {"a": 2}


def test_row_2_a_position_of_before_has_no_shape_and_suspects_nothing() -> None:
    detail = STATE.to_json()
    del detail["shape"]
    back = CaptureState.from_json(detail)
    assert back.shape == Shape()
    assert SHAPE.suspicions(back.shape) == []
    assert not SHAPE.is_cast(back.shape)


def test_a_position_of_before_has_no_witness() -> None:
    detail = json.loads(json.dumps(STATE.to_json()))
    assert CaptureState.from_json({**detail, "witness": None}).witness == Witness(None, CUT)
    former = {key: value for key, value in detail.items() if "witness" not in key}
    assert CaptureState.from_json(former).witness == Witness(None)
