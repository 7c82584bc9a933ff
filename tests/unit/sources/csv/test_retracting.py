"""What becomes of a file whose taking, or taking back, was cut off: over a ledger and a cache in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from contracts.schemas import load
from kafka_client.errors import Retriable
from kafka_client.registry import Codec
from observability.progress_report import ProgressReport
from sources.csv import records, retract
from sources.csv.inbox import Inbox
from sources.csv.ingest import Intake
from sources.csv.results import FileResult
from sources.csv.sale_index import STORED_SCHEMA
from sources.csv.source import Source, Topics, utc_now
from sources.csv.validate import COLUMNS
from sources.position_store import FileRecord, Record, SourceOffset
from tests.support.foreign_values import Registered


class PositionStore:
    """What was committed. `writes_left`: how many transactions come through before it is cut off."""

    def __init__(self) -> None:
        self.files: dict[str, FileRecord] = {}
        self.writes_left = 1_000

    def write(
        self,
        _position: SourceOffset,
        _records: Mapping[str, Sequence[Record]],
        files: Iterable[FileRecord] = (),
    ) -> None:
        if not self.writes_left:
            raise Retriable("cut off")
        self.writes_left -= 1
        self.files.update((entry.sha256, entry) for entry in files)


class SaleIndex:
    """The sales that count, by id."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[Any, ...]] = {}

    def find(self, ids: pl.Series) -> pl.DataFrame:
        return _frame([self.rows[one] for one in ids if one in self.rows])

    def made_by(self, first_seq: int, next_seq: int, most: int) -> pl.DataFrame:
        found = [row for row in self.rows.values() if first_seq <= row[-1] < next_seq]
        return _frame(sorted(found, key=lambda row: row[-1])[:most])

    def apply(self, changed: pl.DataFrame, _next_seq: int) -> None:
        for row in changed.select(list(STORED_SCHEMA)).iter_rows():
            self.rows[row[0]] = row
            if not row[-1]:
                del self.rows[row[0]]


def _frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=STORED_SCHEMA, orient="row")


class Desk(Source):
    """The source as it is, but for what is not in memory."""

    def __init__(self) -> None:
        self.ledger = self._store = PositionStore()  # type: ignore[assignment]
        self.cache = self.index = SaleIndex()  # type: ignore[assignment]
        self._topics, self._clock = Topics(), utc_now
        self._codec = Codec(Registered(), 1, load("sale_event"))
        self.said: list[ProgressReport] = []
        self._position = SourceOffset(1, None, {"topic": "x", "partitions": 1, "recorded": 0})

    @property
    def most_row_bytes(self) -> int:
        return 1_000_000

    @property
    def is_held(self) -> bool:
        return self._position.frontier is not None

    def dead_letters(self, entry: FileRecord, bad: Iterable[Any]) -> list[Record]:
        assert not list(bad), entry
        return []

    def note_ends(self) -> None:
        pass

    def take(self, folder: Path) -> list[FileResult]:
        inbox = Inbox(folder, 0)
        with inbox.held():
            return list(Intake(inbox, self, False, self.said.append).run())

    def put(self, folder: Path, *ids: object, name: str = "sales_1.csv") -> None:
        said = (f"{one},2026-11-22T10:00:00Z,K,DE,s,A,t,1,2.50,EUR" for one in ids)
        (folder / name).write_text("\n".join((",".join(COLUMNS), *said, "")))


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Of small blocks, so that a file is several transactions."""
    monkeypatch.setattr(records, "BLOCK_BYTES", 1_500)
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 400)
    monkeypatch.setattr(retract, "BATCH", 30)
    return Desk()


def test_all_parts_of_a_file_that_was_lost_and_put_in_again_are_taken_back(
    desk: Desk, tmp_path: Path
) -> None:
    desk.put(tmp_path, *range(100))
    desk.ledger.writes_left = 4
    with pytest.raises(Retriable):
        desk.take(tmp_path)
    desk.ledger.writes_left = 1_000
    for copy in (tmp_path / ".taking").glob("?" * 64):
        copy.unlink()
    first = len(desk.cache.rows)
    assert 0 < first < 100
    assert [file.outcome for file in desk.take(tmp_path)] == ["lost"]
    assert not desk.is_held
    # Seqs of another file stand between those of its parts.
    desk.put(tmp_path, "other", name="sales_2.csv")
    desk.take(tmp_path)
    desk.put(tmp_path, *range(100))
    (again,) = desk.take(tmp_path)
    assert (again.counts.accepted, again.counts.duplicates) == (100 - first, first)
    (entry,) = (one for one in desk.files.values() if one.name == "sales_1.csv")
    done = retract.reverse(desk, entry)
    assert (done.taken_back, done.left) == (100, 0)
    assert set(desk.cache.rows) == {"other"}


def test_taking_back_that_was_cut_off_is_ended_by_the_next_run(desk: Desk, tmp_path: Path) -> None:
    desk.put(tmp_path, *range(100))
    desk.take(tmp_path)
    (entry,) = desk.files.values()
    desk.ledger.writes_left = 2
    with pytest.raises(Retriable):
        retract.reverse(desk, entry)
    assert desk.files[entry.sha256].state == "RETRACTING"
    assert desk.is_held
    assert 0 < (left := len(desk.cache.rows)) < 100
    desk.ledger.writes_left = 1_000
    (ended,) = desk.take(tmp_path)
    assert ended.outcome == "retracted"
    assert "100 sales" in ended.reason
    assert desk.files[entry.sha256].state == "RETRACTED"
    assert not desk.is_held
    assert not desk.cache.rows
    assert _events(desk.said[-1]) == left, "it says what it did itself"
    # And may be taken again.
    desk.put(tmp_path, *range(100))
    assert [file.counts.accepted for file in desk.take(tmp_path)] == [100]


def test_a_run_says_what_is_committed_while_it_goes_on(desk: Desk, tmp_path: Path) -> None:
    desk.put(tmp_path, *range(100))
    desk.ledger.writes_left = 4
    with pytest.raises(Retriable):
        desk.take(tmp_path)
    # One of the four enters the file.
    (entry,) = desk.files.values()
    assert 0 < _events(desk.said[-1]) == entry.rows < 100
    desk.ledger.writes_left = 1_000
    desk.take(tmp_path)
    assert _events(desk.said[-1]) == 100 - entry.rows
    counts: list[int] = []
    (entry,) = desk.files.values()
    retract.reverse(desk, entry, lambda written: counts.append(_events(written.report)))
    assert counts == [30, 60, 90, 100]


def _events(report: ProgressReport) -> int:
    (written,) = report.rows.values()
    assert report.counts["csv"]["events"] == written
    return written
