"""Promotion and rollback: one transaction, refused with one line, and the same again after a kill anywhere."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from stack.embedded import Embedded
from streaming.replay import difference, promotion
from streaming.replay.errors import RequestRefused
from streaming.replay.promotion import Promoted
from tests.support.results import DAY, BarrierHold, HeldBarrier, ResultsFixture, city

PIPELINE = "top-sales-by-city"
Promote = Callable[..., Promoted]


@pytest.fixture
def filled(engine: Engine) -> ResultsFixture:
    """Generation 1 is active, generation 2 a candidate with other results."""
    filled = ResultsFixture(engine)
    filled.generation(1, "active")
    filled.generation(2, "candidate")
    filled.write(1, [city("Berlin", "1"), city("Ulm", "2")])
    filled.write(2, [city("Berlin", "3"), city("Ulm", "2")])
    return filled


@pytest.fixture
def look(stack: Embedded, engine: Engine) -> Callable[..., str]:
    def looked(number: int = 2, hold: BarrierHold | None = None) -> str:
        return difference.take(stack.kafka, engine, PIPELINE, number, hold=hold or BarrierHold()).fingerprint

    return looked


@pytest.fixture
def promote(stack: Embedded, engine: Engine) -> Promote:
    def promoted(fingerprint: str, number: int = 2, hold: BarrierHold | None = None) -> Promoted:
        return promotion.promote(
            stack.kafka,
            engine,
            PIPELINE,
            number,
            fingerprint=fingerprint,
            approved_by="Ada",
            hold=hold or BarrierHold(),
        )

    return promoted


@pytest.fixture
def rollback(stack: Embedded, engine: Engine) -> Promote:
    def rolled_back(
        number: int | None = None, reason: str = "it was wrong", hold: BarrierHold | None = None
    ) -> Promoted:
        return promotion.rollback(
            stack.kafka, engine, PIPELINE, number, reason=reason, approved_by="Bo", hold=hold or BarrierHold()
        )

    return rolled_back


def column(engine: Engine, name: str) -> dict[int, object]:
    with engine.connect() as connection:
        return {
            row.number: row[1] for row in connection.execute(text(f"SELECT number, {name} FROM generations"))
        }


def test_a_promotion_moves_pointer_and_states_and_the_former_one_is_standby(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote
) -> None:
    done = promote(look())
    assert done == Promoted(PIPELINE, generation=2, former=1, promotion_number=2, replaced=())
    assert filled.pointer() == (2, 2)
    assert filled.states() == {1: "standby", 2: "active"}
    assert column(filled.engine, "approved_by") == {1: None, 2: "Ada"}
    assert column(filled.engine, "standby_at")[1] is not None
    assert column(filled.engine, "promoted_at")[2] is not None


def test_back_and_forth_the_promotion_number_only_grows(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote, rollback: Promote
) -> None:
    promote(look())
    assert rollback() == Promoted(PIPELINE, generation=1, former=2, promotion_number=3, replaced=())
    assert filled.states() == {1: "active", 2: "standby"}
    assert column(filled.engine, "error")[2] == "rolled back by Bo: it was wrong"
    promote(look())
    assert filled.pointer() == (2, 4)
    assert filled.states() == {1: "standby", 2: "active"}
    assert column(filled.engine, "error") == {1: None, 2: None}


def test_the_generations_are_held_at_one_position(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote
) -> None:
    hold = BarrierHold()
    promote(look(hold=hold), hold=hold)
    assert hold.held == [(1, 2), (1, 2)]


def test_there_is_one_standby_the_former_one_is_retired_in_the_same_transaction(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote
) -> None:
    promote(look())
    filled.generation(3, "candidate")
    assert promote(look(3), 3).replaced == (1,)
    assert filled.states() == {1: "retired", 2: "standby", 3: "active"}


def test_what_is_active_already_is_the_answer_to_who_asks_again(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote, rollback: Promote
) -> None:
    fingerprint = look()
    done = promote(fingerprint)
    after = filled.everything()
    assert promote(fingerprint) == done
    assert rollback(2).generation == 2
    assert filled.everything() == after
    with pytest.raises(RequestRefused, match="active already"):
        promote("0" * 64)


REFUSED = {
    "unknown generation": (9, "has no generation 9: g1 is active, g2 is standby"),
    "never looked at": (2, "was not computed yet"),
    "building": (3, "g3 is building: only a candidate or a standby"),
    "failed": (4, "g4 is failed"),
    "retired": (5, "g5 is retired"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_promoted_is_refused_with_one_line_and_nothing_changes(
    filled: ResultsFixture, promote: Promote, case: str
) -> None:
    number, line = REFUSED[case]
    with filled.engine.begin() as connection:
        # There is one replay at a time.
        connection.execute(text("UPDATE generations SET state = 'standby' WHERE number = 2"))
    for other, state in ((3, "building"), (4, "failed"), (5, "retired")):
        filled.generation(other, state)
    before = filled.everything()
    with pytest.raises(RequestRefused, match=line) as refused:
        promote("0" * 64, number)
    assert "\n" not in str(refused.value)
    assert filled.everything() == before


def test_a_fingerprint_that_is_not_the_newest_is_refused(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote
) -> None:
    old = look()
    filled.write(2, [city("New", "1")])
    look()
    before = filled.everything()
    with pytest.raises(RequestRefused, match="not that of the newest"):
        promote(old)
    assert filled.everything() == before


def test_a_difference_from_before_another_promotion_is_refused(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote
) -> None:
    filled.generation(3, "standby")
    fingerprint, hold = look(), BarrierHold()
    promote(look(3), 3)
    before = filled.everything()
    with pytest.raises(RequestRefused, match="before another promotion"):
        promote(fingerprint, hold=hold)
    assert filled.everything() == before
    assert hold.held == [], "nobody is held up for what is refused anyway"


def test_a_difference_from_before_a_rollback_is_refused(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote, rollback: Promote
) -> None:
    """The base is the same again, but two promotions lie between."""
    filled.generation(3, "standby")
    fingerprint = look()
    promote(look(3), 3)
    rollback()
    with pytest.raises(RequestRefused, match="before another promotion"):
        promote(fingerprint)


@pytest.mark.parametrize("state", ["requested", "targeted", "expired", "released"])
def test_without_a_reached_barrier_nothing_is_promoted(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote, state: str
) -> None:
    fingerprint = look()
    before = filled.everything()
    with pytest.raises(RequestRefused, match=state):
        promote(fingerprint, hold=BarrierHold(state))
    assert filled.everything() == before


def test_a_range_that_is_not_kept_is_refused_and_the_difference_shown(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote
) -> None:
    filled.generation(3, "standby", range_start=DAY, range_end=DAY + timedelta(days=1))
    rows = [city("Berlin", "1"), city("Ulm", "2")]
    filled.write(3, [*rows, city("Inside", "1")])
    fingerprint = look(3)
    filled.write(3, [city("Outside", "1", day=1)])
    states = filled.states()
    with pytest.raises(RequestRefused, match="differs in 1 groups outside of its range 2026-11-22T00:00:00"):
        promote(fingerprint, 3)
    assert (filled.states(), filled.pointer()) == (states, (1, 1))
    shown = difference.newest(filled.engine, PIPELINE, 3)
    assert shown is not None
    assert (shown.outside, shown.added) == (1, 2)


def test_a_range_that_is_kept_is_promoted(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote
) -> None:
    filled.generation(3, "standby", range_start=DAY, range_end=DAY + timedelta(days=1))
    filled.write(3, [city("Berlin", "1"), city("Ulm", "2"), city("Inside", "1")])
    assert promote(look(3), 3).generation == 3


def test_a_range_that_was_promoted_is_the_answer_to_who_asks_again_whatever_came_since_it_was_seen(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote
) -> None:
    filled.generation(3, "standby", range_start=DAY, range_end=DAY + timedelta(days=1))
    filled.write(3, [city("Berlin", "1"), city("Ulm", "2"), city("Inside", "1")])
    fingerprint = look(3)
    done = promote(fingerprint, 3, hold=BarrierHold(targets={0: 8, 1: 9}))
    assert promote(fingerprint, 3) == done


def test_a_difference_that_was_seen_long_ago_is_refused(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote
) -> None:
    fingerprint = look()
    with filled.engine.begin() as connection:
        connection.execute(text("UPDATE differences SET computed_at = computed_at - INTERVAL '25 hours'"))
    before = filled.everything()
    with pytest.raises(RequestRefused, match=r"g2 was seen on .* review it again"):
        promote(fingerprint)
    assert filled.everything() == before


def test_who_asks_nothing_for_long_under_the_locks_loses_them(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does whose machine is gone: live results are not to wait until TCP gives it up."""
    monkeypatch.setitem(promotion.LOCKED_MILLISECONDS, "idle_in_transaction_session_timeout", 200)
    applied: list[int] = []

    class Silent(BarrierHold):
        def checked(self) -> None:
            with filled.engine.begin() as connection:
                connection.execute(text("SET LOCAL lock_timeout = '30s'"))
                found = connection.execute(text("UPDATE generations SET apply_number = apply_number + 1"))
                applied.append(found.rowcount)

    fingerprint = look()
    with pytest.raises(OperationalError):
        promote(fingerprint, hold=Silent())
    assert applied == [2]
    assert filled.pointer() == (1, 1)


def test_a_rollback_needs_a_standby_and_a_reason(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote, rollback: Promote
) -> None:
    before = filled.everything()
    with pytest.raises(RequestRefused, match="has no standby to go back to: g1 is active, g2 is candidate"):
        rollback()
    assert filled.everything() == before
    promote(look())
    before = filled.everything()
    with pytest.raises(RequestRefused, match="needs a reason"):
        rollback(reason=" ")
    with pytest.raises(RequestRefused, match="no standby g7"):
        rollback(7)
    assert filled.everything() == before


def test_a_rollback_from_what_no_longer_runs_holds_the_standby_alone(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote, rollback: Promote
) -> None:
    promote(look())
    filled.reached(1, DAY, DAY)
    filled.reached(2, DAY, DAY - timedelta(hours=1))
    hold = BarrierHold(broken=2)
    assert rollback(hold=hold).generation == 1
    assert hold.held == [(2, 1), (1,)]


@pytest.mark.parametrize("reached", [DAY - timedelta(seconds=1), None])
def test_and_not_to_a_standby_that_is_behind_what_is_shown(
    filled: ResultsFixture,
    look: Callable[..., str],
    promote: Promote,
    rollback: Promote,
    reached: datetime | None,
) -> None:
    promote(look())
    filled.reached(1, DAY, reached)
    filled.reached(2, DAY, DAY)
    before = filled.everything()
    with pytest.raises(RequestRefused, match="g2 does not come to the barrier; and the standby g1 is behind"):
        rollback(hold=BarrierHold(broken=2))
    with pytest.raises(RequestRefused, match="g1 does not come"):
        rollback(hold=BarrierHold(broken=1))
    assert filled.everything() == before


def test_of_two_rollbacks_at_once_one_is_refused(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote, rollback: Promote
) -> None:
    promote(look())

    class Later(BarrierHold):
        @contextmanager
        def __call__(self, *arguments: Any) -> Iterator[HeldBarrier]:
            rollback()
            with super().__call__(*arguments) as standing:
                yield standing

    with pytest.raises(RequestRefused, match="changed at the same moment"):
        rollback(hold=Later())
    assert filled.states() == {1: "active", 2: "standby"}
    assert filled.pointer() == (1, 3)


def test_of_two_promotions_at_once_one_is_refused(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote
) -> None:
    filled.generation(3, "standby")
    prints = {2: look(2), 3: look(3)}
    outcomes: list[Promoted | RequestRefused] = []

    def one(number: int) -> None:
        try:
            outcomes.append(promote(prints[number], number))
        except RequestRefused as error:
            outcomes.append(error)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(one, prints))
    done = [outcome for outcome in outcomes if isinstance(outcome, Promoted)]
    assert len(done) == 1, outcomes
    assert filled.pointer() == (done[0].generation, 2)
    states = filled.states()
    assert (states[done[0].generation], states[1]) == ("active", "standby")
    assert list(states.values()).count("standby") == 1


def test_a_standby_that_is_written_to_meanwhile_is_no_hindrance(
    filled: ResultsFixture, look: Callable[..., str], promote: Promote
) -> None:
    """No barrier holds it, and the promotion retires it."""
    filled.generation(3, "standby")
    stop = threading.Event()

    def apply() -> int:
        count = 1
        while not stop.is_set() and count:
            with filled.engine.begin() as connection:
                count = connection.execute(
                    text(
                        "UPDATE generations SET apply_number = apply_number + 1 WHERE number = 3 AND state <> 'retired'"
                    )
                ).rowcount
        return count

    with ThreadPoolExecutor(1) as threads:
        applied = threads.submit(apply)
        try:
            assert promote(look()).replaced == (3,)
        finally:
            stop.set()
        applied.result()


# -- kill -9 at every step


def test_killed_while_it_compares_nothing_is_stored_and_the_next_one_is_whole(
    filled: ResultsFixture, child: Callable[..., int]
) -> None:
    before = filled.everything()
    assert child("diff", 2, failpoint="diff.before_commit") == -signal.SIGKILL
    assert filled.everything() == before
    assert child("diff", 2) == 0
    found = difference.newest(filled.engine, PIPELINE, 2)
    assert found is not None
    assert (found.changed, found.count, found.compared) == (1, 1, 2)


@pytest.mark.parametrize(
    ("failpoint", "moved"), [("promote.before_commit", False), ("promote.committed", True)]
)
@pytest.mark.parametrize("call", ["promote", "rollback"])
def test_killed_while_it_promotes_it_is_done_or_not_and_the_same_call_again_does_it_once(
    filled: ResultsFixture,
    look: Callable[..., str],
    promote: Promote,
    child: Callable[..., int],
    call: str,
    failpoint: str,
    moved: bool,
) -> None:
    number, promotions = 2, 2
    fingerprint = look()
    if call == "rollback":
        promote(fingerprint)
        number, promotions = 1, 3
    before = filled.everything()
    assert child(call, number, fingerprint, failpoint) == -signal.SIGKILL
    if moved:
        assert filled.pointer() == (number, promotions)
    else:
        assert filled.everything() == before
    assert child(call, number, fingerprint) == 0
    assert filled.pointer() == (number, promotions)
    assert filled.states() == {number: "active", 3 - number: "standby"}
