"""When a broker is fenced before it starts, and what counts as fenced."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack.broker import _until_fenced, was_killed

_PREFIX = "2026-11-22T21:03:11,020 INFO  ClusterControlManager [QuorumController id=1] Replayed "
_REGISTERED = (
    _PREFIX
    + "initial RegisterBrokerRecord for broker 1: RegisterBrokerRecord(brokerId=1, fenced=true, rack=null)\n"
)
_CHANGED = (
    _PREFIX
    + "BrokerRegistrationChangeRecord for broker 1: BrokerRegistrationChangeRecord(brokerId=1, fenced={})\n"
)
_ACTIVE = "2026-11-22T21:03:11,062 INFO  PeriodicTaskControlManager Activated periodic tasks: maybeFenceStaleBroker\n"


@pytest.mark.parametrize(
    ("metadata", "clean", "expected"),
    [(False, False, False), (True, True, False), (True, False, True)],
    ids=["new", "stopped cleanly", "killed"],
)
def test_only_a_broker_that_was_killed_is_fenced(
    tmp_path: Path, metadata: bool, clean: bool, expected: bool
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if metadata:
        (data / "__cluster_metadata-0").mkdir()
    if clean:
        (data / ".kafka_cleanshutdown").touch()
    assert was_killed(tmp_path) is expected


def test_a_living_registration_is_waited_for_until_it_is_fenced() -> None:
    log = iter([_REGISTERED, _CHANGED.format(0), _CHANGED.format(-1), _ACTIVE, _CHANGED.format(1), "more\n"])
    assert _until_fenced(log) == []
    assert list(log) == ["more\n"], "it stops reading where the broker was fenced"


def test_a_broker_that_never_was_let_in_needs_no_waiting() -> None:
    assert _until_fenced(iter([_REGISTERED, _CHANGED.format(0), _ACTIVE])) == []


def test_a_controller_that_ends_before_is_an_error_with_its_own_words() -> None:
    log = iter([_REGISTERED, _CHANGED.format(-1), _ACTIVE, "no space left\n"])
    assert _until_fenced(log)[-1] == "no space left"
    assert _until_fenced(iter([])) == ["the controller ended without output"]
