"""When the frontier moves, with explicit times."""

from __future__ import annotations

from sources.postgres.frontier import Frontier


def test_it_moves_to_the_time_of_the_question_when_the_stream_has_passed_it() -> None:
    frontier = Frontier(0)
    assert frontier.may_ask
    frontier.asked(lsn=50, at=1_000, clock=100.0)
    assert not frontier.is_answered(49)
    assert frontier.candidate(49, committed_at=900, clock=100.5) is None
    assert frontier.is_answered(50)
    assert frontier.candidate(50, committed_at=900, clock=100.5) == 1_000


def test_one_question_at_a_time() -> None:
    frontier = Frontier(0)
    frontier.asked(50, 1_000, 100.0)
    assert not frontier.may_ask
    assert frontier.candidate(50, 0, 100.1) == 1_000
    assert frontier.may_ask


def test_behind_it_is_the_last_commit_that_is_in_the_log() -> None:
    frontier = Frontier(0)
    frontier.asked(50, 1_000, 100.0)
    assert not frontier.may_ask
    assert frontier.candidate(20, committed_at=700, clock=101.0) == 700
    assert frontier.candidate(30, committed_at=800, clock=101.5) is None
    assert frontier.candidate(40, committed_at=800, clock=102.0) == 800


def test_it_never_goes_back() -> None:
    frontier = Frontier(5_000)
    frontier.asked(50, 1_000, 100.0)
    assert frontier.candidate(20, 700, 101.0) == 5_000
    assert frontier.candidate(50, 700, 101.1) == 5_000
