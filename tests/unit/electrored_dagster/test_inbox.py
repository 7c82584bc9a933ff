"""When a run takes files: at once after quiet, seldom when it is in vain, never two at once."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml

from contracts.settings import CsvSettings
from electrored_dagster.csv_policy import (
    MOST_DOUBLINGS,
    OLD,
    InboxSnapshot,
    Memory,
    Runs,
    look,
    reason_to_wait,
)
from sources.csv.inbox import Inbox
from sources.csv.wholeness import UNENDED_SECONDS

ROOT = Path(__file__).parents[3]
EVERY = timedelta(seconds=30)
QUIET = Runs()


@pytest.fixture
def settings(tmp_path: Path) -> CsvSettings:
    return CsvSettings(csv_inbox=tmp_path, csv_settle_seconds=0)


def put(settings: CsvSettings, name: str = "sales_1.csv") -> datetime:
    """A file; gives the time at which it came."""
    path = settings.csv_inbox / name
    path.write_text("sale_id\n")
    return datetime.fromtimestamp(path.stat().st_ctime, UTC)


def cut_off(settings: CsvSettings) -> Path:
    copy = settings.csv_inbox / ".taking" / ("a" * 64)
    copy.parent.mkdir()
    copy.write_text("sale_id\n")
    return copy


def waits(found: InboxSnapshot, runs: Runs, now: datetime, memory: Memory | None = None) -> str | None:
    return reason_to_wait(found, runs, memory or Memory(), EVERY, now)


def test_nothing_is_started_for_nothing(settings: CsvSettings) -> None:
    assert waits(look(settings), QUIET, datetime.now(UTC)) == "nothing waits"


def test_a_file_that_is_written_to_is_waited_for(settings: CsvSettings) -> None:
    now = put(settings)
    found = look(settings.model_copy(update={"csv_settle_seconds": 60}))
    assert waits(found, QUIET, now) == "files are not complete yet: sales_1.csv: it was written to just now"


def test_row_12_a_file_that_is_open_is_waited_for_and_the_check_has_the_reason(
    settings: CsvSettings,
) -> None:
    with (settings.csv_inbox / "sales_1.csv").open("w") as file:
        file.write("sale_id\n")
        file.flush()
        now = datetime.now(UTC)
        found = look(settings)
    reason = "sales_1.csv: another process has it open for writing"
    assert waits(found, QUIET, now) == f"files are not complete yet: {reason}"
    assert reason in (found.check(now).description or "")
    assert found.observation(now).metadata["unfinished"].value == reason


def test_row_12_what_was_written_to_after_it_was_taken_is_taken_by_a_run(settings: CsvSettings) -> None:
    put(settings)
    inbox = Inbox(settings.csv_inbox, 0)
    with inbox.held():
        (waiting,) = inbox.waiting()
        inbox.let_go(waiting, "a" * 64)
    now = datetime.now(UTC)
    before = look(settings)
    assert waits(before, QUIET, now) == "nothing waits"
    (kept,) = settings.csv_inbox.glob(".taking/originals/*/*")
    kept.write_text("sale_id\nmore\n")
    found = look(settings)
    assert waits(found, QUIET, now) is None
    assert found.fingerprint != before.fingerprint
    assert found.observation(now).metadata["written_after"].value == 1


def test_row_13_names_that_are_not_recognised_fail_a_check_that_shows_them(settings: CsvSettings) -> None:
    for name in ("SALES_1.CSV", "sales_2.csv.gz", "Sales_3.csv"):
        put(settings, name)
    found = look(settings)
    assert len(found.complete) == 3
    assert (found.names_check().passed, found.unrecognised_digest) == (True, "")
    for number in range(30):
        put(settings, f"sales-{number}.csv")
    (settings.csv_inbox / "sub").mkdir()
    put(settings, "sub/sales_5.csv")
    found = look(settings)
    check = found.names_check()
    assert not check.passed
    assert check.metadata["unrecognised"].value == 31
    assert "sales-0.csv; sales-1.csv; sales-2.csv" in (check.description or ""), "numbers sort as numbers"
    assert "and 11 more" in (check.description or "")
    assert found.observation(datetime.now(UTC)).metadata["unrecognised"].value == 31


def test_the_first_file_after_quiet_is_taken_at_once(settings: CsvSettings) -> None:
    now = put(settings)
    assert waits(look(settings), QUIET, now) is None
    assert waits(look(settings), Runs(newest_at=now - EVERY), now) is None


def test_the_next_run_comes_no_sooner_than_the_setting(settings: CsvSettings) -> None:
    now = put(settings)
    assert waits(look(settings), Runs(newest_at=now - EVERY / 2), now) is not None


def test_two_runs_are_never_on_their_way(settings: CsvSettings) -> None:
    now = put(settings)
    assert (
        waits(look(settings), Runs(is_busy=True, newest_at=now - 100 * EVERY), now) == "a run is on its way"
    )


def test_what_a_cut_off_run_left_is_gone_on_with(settings: CsvSettings) -> None:
    cut_off(settings)
    now = datetime.now(UTC)
    assert waits(look(settings), Runs(newest_at=now - 2 * EVERY, failures=1), now) is None


def test_a_cut_off_run_is_followed_by_another_although_nothing_waits(settings: CsvSettings) -> None:
    """It may have left the frontier held for a file whose copy is gone; less and less often while that fails too."""
    now = datetime.now(UTC)
    assert waits(look(settings), Runs(newest_at=now - 2 * EVERY, failures=1, is_owed=True), now) is None
    assert waits(look(settings), Runs(newest_at=now - 2 * EVERY, failures=2, is_owed=True), now) is not None
    assert waits(look(settings), Runs(is_owed=True), now) is None
    assert waits(look(settings), Runs(newest_at=now - 2 * EVERY), now) == "nothing waits"


STARTED, SUCCESS, FAILURE, CANCELED = (
    dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)  # fmt: skip


def records(*statuses: dg.DagsterRunStatus, at: int) -> list[dg.RunRecord]:
    """The newest first, and made so many seconds after the epoch."""
    moment = datetime.fromtimestamp(at, UTC)
    return [
        dg.RunRecord(n, dg.DagsterRun(job_name="csv", run_id=str(n), status=status), moment, moment)
        for n, status in enumerate(statuses)
    ]


def test_whichever_run_was_cut_off_last_is_made_good_by_one_that_takes_files() -> None:
    assert Runs.of(records(FAILURE, SUCCESS, at=1)).is_owed
    assert Runs.of(records(CANCELED, at=1)).is_owed
    assert not Runs.of(records(SUCCESS, FAILURE, at=1)).is_owed
    assert not Runs.of(records(STARTED, FAILURE, at=1)).is_owed
    assert Runs.of([], records(FAILURE, at=1)).is_owed
    assert Runs.of(records(SUCCESS, at=1), records(FAILURE, at=2)).is_owed
    # Its failures make no other run wait.
    assert Runs.of(records(SUCCESS, at=1), records(FAILURE, at=2)).failures == 0
    assert not Runs.of(records(SUCCESS, at=3), records(FAILURE, at=2)).is_owed
    assert not Runs.of([]).is_owed


@pytest.mark.parametrize("failures", [1, 2, 3, MOST_DOUBLINGS, 20])
def test_each_failure_doubles_the_wait_up_to_a_limit(settings: CsvSettings, failures: int) -> None:
    now = put(settings)
    wait = EVERY * 2 ** min(failures, MOST_DOUBLINGS)
    soon = Runs(newest_at=now - wait + timedelta(seconds=1), failures=failures)
    assert waits(look(settings), soon, now) is not None
    assert waits(look(settings), Runs(newest_at=now - wait, failures=failures), now) is None


def test_a_file_that_runs_leave_where_it_is_is_asked_for_less_and_less_often(settings: CsvSettings) -> None:
    now = put(settings)
    found, memory = look(settings), Memory()
    for times in range(1, MOST_DOUBLINGS + 1):
        memory = memory.requested(found)
        wait = EVERY * 2**times
        assert waits(found, Runs(newest_at=now - wait + timedelta(seconds=1)), now, memory) is not None
        assert waits(found, Runs(newest_at=now - wait), now, memory) is None


def test_a_new_file_beside_one_that_is_left_is_taken_as_soon_as_any(settings: CsvSettings) -> None:
    put(settings)
    memory = Memory().requested(look(settings)).requested(look(settings))
    now = put(settings, "sales_2.csv")
    assert waits(look(settings), Runs(newest_at=now - EVERY), now, memory) is None


def test_the_memory_is_read_from_the_cursor(settings: CsvSettings) -> None:
    put(settings)
    memory = Memory().requested(look(settings)).reported(True, "abc")
    assert Memory.of(memory.cursor) == memory
    assert Memory.of(None) == Memory()


def test_a_name_that_is_no_text_is_a_name(settings: CsvSettings) -> None:
    path = os.fsencode(settings.csv_inbox) + b"/sales_\xff.csv"
    Path(os.fsdecode(path)).write_text("sale_id\n")
    assert len(Memory().requested(look(settings)).cursor) > 64


def test_a_file_that_waits_for_long_fails_the_check(settings: CsvSettings) -> None:
    came_at = put(settings)
    soon, late = came_at + OLD, came_at + OLD + timedelta(seconds=1)
    assert look(settings).check(soon).passed
    late_check = look(settings).check(late)
    assert not late_check.passed
    assert late_check.severity == dg.AssetCheckSeverity.WARN
    assert look(settings).is_old(QUIET, late)


def test_a_file_without_a_last_line_end_is_taken_before_it_is_old(settings: CsvSettings) -> None:
    """And the alert, which wakes a person, is no sooner than the check."""
    came_at = put(settings)
    (settings.csv_inbox / "sales_1.csv").write_text("sale_id")
    taken_by = came_at + timedelta(seconds=UNENDED_SECONDS) + 4 * EVERY
    assert look(settings).unfinished
    assert look(settings).check(taken_by).passed
    rules = yaml.safe_load((ROOT / "observability/prometheus/alerts.rules.yml").read_text())
    (rule,) = (
        one for group in rules["groups"] for one in group["rules"] if one.get("alert") == "CsvFileWaits"
    )
    assert float(rule["expr"].split(">")[1]) >= OLD.total_seconds()


def test_a_large_file_that_is_being_taken_is_not_old(settings: CsvSettings) -> None:
    copy = cut_off(settings)
    late = datetime.fromtimestamp(copy.stat().st_mtime, UTC) + 2 * OLD
    assert look(settings).is_old(QUIET, late)
    assert not look(settings).is_old(Runs(is_busy=True, newest_at=late), late)
