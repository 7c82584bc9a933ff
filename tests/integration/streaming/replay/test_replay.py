"""A replay beside live traffic: built, followed, held at one position, compared, promoted."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, update

from contracts.tables import barriers, generations
from streaming.generations import supervisor
from streaming.replay import build
from streaming.replay.barrier import hold_at_barrier
from streaming.replay.errors import RequestRefused
from streaming.replay.request import Request
from tests.support.live_harness import LiveHarness, expire


def test_a_replay_ends_as_a_candidate_that_differs_in_nothing_and_is_kept_up_to_date(
    live: LiveHarness,
) -> None:
    live.harness.feed(3000)
    with live.running():
        live.settled(1)
        candidate = live.build()
        assert (candidate.number, candidate.state) == (2, "candidate")
        live.settled(2)
        live.harness.feed(500)
        live.settled(2)
        found = live.compare(2)
        assert (found.count, found.outside) == (0, 0)
        assert found.compared == len([1 for _, count in live.harness.expected().values() if count])


@pytest.mark.soak
def test_what_is_compared_is_exact_while_events_pour_in(live: LiveHarness) -> None:
    live.harness.feed(2000)
    pouring = threading.Event()

    def pour() -> None:
        # With a pause: worker, sink and coordinator are threads of this process.
        while not pouring.wait(0.02):
            live.harness.feed(40)

    with live.running(), ThreadPoolExecutor(1) as threads:
        live.build()
        live.settled(2)
        poured = threads.submit(pour)
        try:
            targets = []
            for _ in range(5):
                found = live.compare(2)
                assert found.count == 0
                targets.append(sum(found.targets.values()))
        finally:
            pouring.set()
        poured.result(60)
        assert targets == sorted(set(targets))
        live.settled(1)
        live.settled(2)


@pytest.mark.soak
def test_a_promoted_generation_answers_and_the_former_is_kept_up_to_date(live: LiveHarness) -> None:
    live.harness.feed(1000)
    with live.running():
        live.build()
        live.settled(2)
        promoted = live.promote(2, live.compare(2).fingerprint)
        assert (promoted.generation, promoted.former, promoted.promotion_number) == (2, 1, 2)
        assert (live.state(1), live.state(2)) == ("standby", "active")
        live.harness.feed(300)
        live.settled(2)
        live.settled(1)
        back = live.rollback()
        assert (back.generation, live.state(1), live.state(2)) == (1, "active", "standby")


def test_a_slice_that_was_ended_goes_on_where_it_was(live: LiveHarness) -> None:
    live.harness.feed(4000)
    generation = build.begin(live.harness.kafka, live.harness.results, live.request())
    combines, merges = build.slices(generation)
    first = live.run(generation, combines[0])
    # Again from the beginning, as a job that was killed is run again.
    assert build.begin(live.harness.kafka, live.harness.results, live.request()).number == 2
    assert live.run(generation, combines[0]) == first
    for piece in [*combines[1:], *merges, *merges]:
        live.run(generation, piece)
    build.finish(live.harness.results, generation)
    with live.running():
        live.settled(1)
        live.settled(2)
        assert live.compare(2).is_empty


def test_a_second_replay_is_refused_while_one_waits(live: LiveHarness) -> None:
    live.harness.feed(100)
    live.candidate()
    with pytest.raises(RequestRefused, match="waits: promote or retire it first"):
        build.begin(live.harness.kafka, live.harness.results, live.request("another"))
    same = build.begin(live.harness.kafka, live.harness.results, live.request())
    assert (same.number, same.state) == (2, "candidate"), "to be compared once more"


def test_what_somebody_else_left_is_not_gone_on_with(live: LiveHarness) -> None:
    """The nightly check takes away what it made, and whatever it took over would go as well."""
    harness = live.harness
    harness.feed(100)
    build.begin(harness.kafka, harness.results, live.request())
    asked = Request(harness.pipeline.name, "a test", "somebody else")
    with pytest.raises(
        RequestRefused, match="'a test' by test, is being built: the same request again resumes it"
    ):
        build.begin(harness.kafka, harness.results, asked)


def test_without_workers_a_barrier_is_refused_in_time_and_leaves_nothing_held(live: LiveHarness) -> None:
    live.harness.feed(100)
    live.candidate()
    name = live.harness.pipeline.name
    with (
        pytest.raises(RequestRefused, match="combine reported by no generation"),
        hold_at_barrier(live.harness.kafka, live.harness.results, name, (1, 2), 1.0),
    ):
        pass
    with live.running():
        live.settled(1)
        live.settled(2)


def test_a_barrier_whose_coordinator_died_expires_and_live_traffic_goes_on(live: LiveHarness) -> None:
    harness = live.harness
    harness.feed(100)
    with live.running():
        live.settled(1)
        holding = hold_at_barrier(harness.kafka, harness.results, harness.pipeline.name, (1,), 600.0)
        barrier = holding.__enter__()
        harness.feed(50)
        with harness.results.connect() as connection:
            barrier.check(connection)
        again = hold_at_barrier(harness.kafka, harness.results, harness.pipeline.name, (1,), 4.0)
        with pytest.raises(RequestRefused, match="being compared or promoted already"):
            again.__enter__()
        live.rests(1)
        expire(harness.results)
        live.settled(1)
        with (
            harness.results.connect() as connection,
            pytest.raises(RequestRefused, match="the barrier is expired"),
        ):
            barrier.check(connection)
        holding.__exit__(None, None, None)
        with harness.results.begin() as connection:
            assert connection.scalars(select(barriers.c.state)).all() == ["expired"]


def test_a_version_that_this_code_lacks_is_left_to_others(
    live: LiveHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a new release is rolled out, workers of the old one give up nothing that others run well."""
    monkeypatch.setattr(supervisor, "AGAIN_SECONDS", ())
    harness = live.harness
    harness.feed(100)
    live.candidate()
    with harness.results.begin() as connection:
        connection.execute(update(generations).where(generations.c.number == 2).values(version=9))
    with live.running():
        live.settled(1)
        harness.feed(100)
        live.settled(1)
    assert live.state(2) == "candidate"
