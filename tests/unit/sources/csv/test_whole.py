"""A file is taken when it is whole, and what is written to it afterwards is not lost."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.inbox import listing, natural
from sources.csv import content, originals, wholeness
from sources.csv.inbox import Inbox, Unfinished, Waiting
from sources.csv.originals import WATCH_SECONDS
from sources.csv.wholeness import UNENDED_SECONDS
from tests.support.slow_writer import writer

HEADER = "sale_id,sold_at,city,country,salesman_id,salesman_name,product,quantity,currency,amount\n"
CUT = "a1,2026-11-22T10:00:00Z,Berlin,DE,s1,Ada,tv,1,EUR,10"
DAY = 86_400.0


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock on by so many seconds from now."""
    now = time.time()
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: now + seconds)


def only(inbox: Inbox) -> Waiting:
    (found,) = inbox.waiting()
    return found


@pytest.mark.parametrize("is_remote", [False, True], ids=["by its lease", "by its process"])
def test_row_12_a_file_that_somebody_has_open_waits_however_long(
    tmp_path: Path, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, is_remote: bool
) -> None:
    monkeypatch.setattr(wholeness, "_is_remote", lambda _: is_remote)
    path = tmp_path / "sales_1.csv"
    inbox = Inbox(tmp_path, 0)
    with writer(path, "w") as write:
        write(HEADER + CUT)
        later(DAY)
        assert only(inbox).unfinished == wholeness.OPEN
        write("00.00\na2\n")
        assert only(inbox).unfinished == wholeness.OPEN
    assert only(inbox).is_complete


def test_a_file_that_is_read_or_of_others_does_not_look_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A foreign file allows no lease: open files of processes are checked instead."""
    path = tmp_path / "sales_1.csv"
    path.write_text("a\n")
    for remote in (False, True):
        monkeypatch.setattr(wholeness, "_is_remote", lambda _, remote=remote: remote)
        with writer(path, "r"):
            assert only(Inbox(tmp_path, 0)).is_complete
    monkeypatch.undo()

    def refusing(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("sources.csv.wholeness.fcntl.fcntl", refusing)
    assert only(Inbox(tmp_path, 0)).is_complete
    with writer(path):
        assert only(Inbox(tmp_path, 0)).unfinished == wholeness.OPEN


@pytest.mark.parametrize("text", ["", HEADER + CUT, HEADER.strip()])
def test_row_12_a_last_record_without_its_line_end_waits_for_minutes_without_a_change(
    tmp_path: Path, later: Callable[[float], None], text: str
) -> None:
    path = tmp_path / ".x"
    path.write_text(text)
    path.rename(tmp_path / "sales_1.csv")
    inbox = Inbox(tmp_path, 0)
    later(60)
    assert "no line end" in only(inbox).unfinished
    later(UNENDED_SECONDS - 1)
    assert not only(inbox).is_complete
    later(UNENDED_SECONDS + 1)
    assert only(inbox).is_complete
    with inbox.held():
        assert inbox.copy(only(inbox)) is not None


def test_row_12_a_line_end_within_quotes_is_none(tmp_path: Path, later: Callable[[float], None]) -> None:
    """A writer may pause in the middle of a text of several lines."""
    (tmp_path / "sales_1.csv").write_text(HEADER + 'a1,2026-11-22T10:00:00Z,"Ber\n')
    inbox = Inbox(tmp_path, 0)
    with inbox.held():
        with pytest.raises(Unfinished, match="a quote is open"):
            inbox.copy(only(inbox))
        later(UNENDED_SECONDS + 1)
        assert inbox.copy(only(inbox)) is not None


@pytest.mark.parametrize("how", ["grows", "is written anew", "through a second name"])
def test_row_12_what_is_written_after_the_taking_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """By a writer that cannot be seen, as on another machine: its file goes on where the inbox is."""
    monkeypatch.setattr(wholeness, "is_written", lambda *_: False)
    monkeypatch.setattr(originals, "is_written", lambda *_: False)
    path = tmp_path / "sales_1.csv"
    inbox = Inbox(tmp_path, 0)
    with inbox.held(), writer(path, "w") as write:
        write(HEADER)
        if how == "through a second name":
            os.link(path, tmp_path / ".second")
        copy = inbox.copy(only(inbox))
        assert copy is not None
        inbox.let_go(only(inbox), copy.sha256)
        inbox.forget()
        assert (inbox.waiting(), inbox.written_after()) == ([], [])
        if how == "through a second name":
            with (tmp_path / ".second").open("a") as file:
                file.write(CUT + "\n")
        elif how == "grows":
            write(CUT + "\n")
        else:
            (kept,) = (tmp_path / ".taking/originals").glob("*/*")
            kept.write_text(HEADER + CUT + "\n")
        (original,) = inbox.written_after()
        assert (original.shown, original.sha256) == ("sales_1.csv", copy.sha256)
        # Another one has its name meanwhile.
        path.write_text("another\n")
        inbox.put_back(original)
        assert inbox.written_after() == []
        back, _ = sorted(inbox.waiting(), key=lambda one: one.name)
        assert back.name == f"sales_1.{copy.sha256[:16]}.csv"
        assert (tmp_path / back.name).read_text() == HEADER + CUT + "\n"


def test_an_original_is_watched_for_an_hour_and_while_somebody_has_it_open(
    tmp_path: Path, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wholeness, "is_written", lambda *_: False)
    path = tmp_path / "sales_1.csv"
    inbox = Inbox(tmp_path, 0)

    def kept() -> int:
        inbox.forget()
        return len(list((tmp_path / ".taking/originals").glob("*/*")))

    with inbox.held(), writer(path, "w") as write:
        write(HEADER)
        copy = inbox.copy(only(inbox))
        assert copy is not None
        inbox.let_go(only(inbox), copy.sha256)
        later(WATCH_SECONDS + 10)
        assert kept() == 1, "somebody has it open"
    later(WATCH_SECONDS - 10)
    assert kept() == 1
    later(WATCH_SECONDS + 10)
    assert kept() == 0
    assert list((tmp_path / ".taking/originals").iterdir()) == []


def packed(tmp_path: Path, name: str, data: bytes) -> Inbox:
    (tmp_path / name).write_bytes(data)
    return Inbox(tmp_path, 0)


def test_row_13_a_packed_file_is_its_content(tmp_path: Path) -> None:
    """The same rows, packed and plain, under whichever name, are one content; several members are one file."""
    text = (HEADER + CUT + "\n").encode()
    hashes = set()
    pieces = {
        "sales_1.csv": text,
        "Sales_2.csv.GZ": gzip.compress(text),
        "sales_3.csv": gzip.compress(text[:20]) + gzip.compress(text[20:]) + b"\0" * 100,
        "SALES_4.CSV.GZ": text,
    }
    for name, data in pieces.items():
        inbox = packed(tmp_path, name, data)
        with inbox.held():
            copy = inbox.copy(only(inbox))
            assert copy is not None
            inbox.let_go(only(inbox), copy.sha256)
            hashes.add((copy.sha256, copy.size, copy.problem))
            assert inbox.path_of(copy.sha256).read_bytes() == text
            inbox.reject(copy.sha256, name, "why")
    assert len(hashes) == 1
    kept = {path.name for path in (tmp_path / "rejected").iterdir() if not path.name.endswith(".txt")}
    assert kept == {"sales_1.csv", "Sales_2.csv", "sales_3.csv", "SALES_4.CSV"}, "what is unpacked says so"


def test_row_13_packed_data_end_where_they_say(tmp_path: Path, later: Callable[[float], None]) -> None:
    """A last record without its line end is whole within them; data that are cut off wait, and are then refused."""
    data = gzip.compress((HEADER + CUT).encode())
    inbox = packed(tmp_path, "sales_1.csv.gz", data)
    with inbox.held():
        assert inbox.copy(only(inbox)) is not None
        packed(tmp_path, "sales_1.csv.gz", data[:-5])
        with pytest.raises(Unfinished, match="cut off"):
            inbox.copy(only(inbox))
        later(UNENDED_SECONDS + 1)
        cut = inbox.copy(only(inbox))
        assert cut is not None
        assert cut.problem == "its gzip data are cut off"
        assert inbox.path_of(cut.sha256).read_bytes() == data[:-5]


@pytest.mark.parametrize("fault", ["damaged", "bomb"])
def test_row_13_packed_data_that_cannot_be_unpacked_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    data = bytearray(gzip.compress(bytes(1 << (22 if fault == "bomb" else 10))))
    if fault == "damaged":
        data[-6] ^= 0xFF
    monkeypatch.setattr(content, "MOST_FREE_BYTES", 1 << 20)
    inbox = packed(tmp_path, "sales_1.csv.gz", bytes(data))
    with inbox.held():
        copy = inbox.copy(only(inbox))
        assert copy is not None
        assert ("damaged" if fault == "damaged" else "unpacks to more than") in copy.problem
        assert copy.size == len(data), "what is kept is the file as it is"


NAMES = {
    "files": ["sales_1.csv", "SALES_1.CSV", "sales_2.CSV", "Sales_4.csv", "sales_3.csv.gz", "sales_5.csv.GZ"],
    "unrecognised": [
        "sales-11.csv", "sale_1.csv", "sales_1.txt", "sales_1.csv.zip", "notes.txt", "sales_1.csv ", "sub/sales_5.csv",
        "sub/deep/any.CSV",
    ],
    "passed over": [
        ".sales_1.csv.swp", "sales_1.csv.part", "sales_1.tmp", "~$sales.xlsx", "sales_1.csv~", ".DS_Store",
        "README.txt", "Thumbs.db", "sales_9.csv.filepart", "#sales_1.csv#", "processed/sales_0.csv", "sub/README.txt",
        ".hidden/sales_1.csv",
    ],
}  # fmt: skip


def test_row_13_every_name_is_taken_or_counted_or_passed_over(
    tmp_path: Path, later: Callable[[float], None]
) -> None:
    for names in NAMES.values():
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("a\n")
    found = listing(tmp_path)
    assert sorted(found.files) == sorted(NAMES["files"])
    assert sorted(found.unrecognised) == sorted(NAMES["unrecognised"])
    # A file left under a temporary name counts as unrecognised.
    later(2 * DAY)
    assert {"sales_1.csv.part", "sales_9.csv.filepart"} <= set(listing(tmp_path).unrecognised)


def test_row_14_files_of_one_time_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = [
        "sales_10.csv",
        "sales_9.csv",
        "Sales_1_b.csv",
        "sales_1_a.csv",
        "sales_2026-2-1.csv",
        "sales_007.csv",
    ]
    for name in names:
        (tmp_path / name).write_text("a\n")
        os.utime(tmp_path / name, (5, 5))
    (tmp_path / "sales_99.csv").write_text("a\n")
    os.utime(tmp_path / "sales_99.csv", (4, 4))
    assert [one.name for one in Inbox(tmp_path, 0).waiting()] == [
        "sales_99.csv",
        "sales_1_a.csv",
        "Sales_1_b.csv",
        "sales_007.csv",
        "sales_9.csv",
        "sales_10.csv",
        "sales_2026-2-1.csv",
    ]
    assert natural("sales_" + "9" * 249) < natural("sales_1" + "0" * 249)
    assert natural("sales_٣.csv") != natural("sales_3.csv"), "digits of another script are letters"
