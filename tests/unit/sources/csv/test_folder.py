"""The folder files are put in: nothing that lies there stops a run, or leads out of it."""

from __future__ import annotations

import hashlib
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from kafka_client.errors import Refused
from sources.csv.inbox import Inbox
from sources.csv.ingest import Intake
from sources.csv.regular import Copy
from sources.csv.results import FileResult
from sources.csv.source import Source
from sources.position_store import FileRecord

AT = datetime(2026, 11, 22, tzinfo=UTC)
# As long as a name may be; and one whose bytes become three each when it is shown.
LONG_NAMES = [b"sales_" + b"x" * 245 + b".csv", b"sales_" + b"\xff" * 90 + b".csv"]


def copied(inbox: Inbox, folder: Path, name: bytes) -> tuple[Copy, str]:
    """Put a file in and make its content ours."""
    fd = os.open(os.fsencode(folder) + b"/" + name, os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(fd, name + b"\n")
    os.close(fd)
    (waiting,) = inbox.waiting()
    copy = inbox.copy(waiting)
    assert copy is not None
    inbox.let_go(waiting, copy.sha256)
    return copy, waiting.shown


@pytest.mark.parametrize("name", LONG_NAMES)
def test_a_name_of_any_length_is_put_away(tmp_path: Path, name: bytes) -> None:
    """Also a second time, when a hash goes to the name; its beginning and its suffix stay."""
    inbox = Inbox(tmp_path, 0)
    with inbox.held():
        for _ in range(2):
            copy, shown = copied(inbox, tmp_path, name)
            inbox.finish(copy.sha256, shown, AT)
            copy, shown = copied(inbox, tmp_path, name)
            inbox.reject(copy.sha256, shown, "why")
    for folder, count in (("processed/2026/11/22", 2), ("rejected", 2)):
        kept = list((tmp_path / folder).glob("sales_*.csv"))
        assert len(kept) == count
        assert all(path.read_bytes() == name + b"\n" for path in kept)
    assert len(list((tmp_path / "rejected").glob("*.reason.txt"))) == 2
    assert inbox.copies() == []


def test_a_special_file_with_a_long_name_is_rejected(tmp_path: Path) -> None:
    os.mkfifo(os.fsencode(tmp_path) + b"/" + LONG_NAMES[0])
    assert [one.outcome for one in run(Inbox(tmp_path, 0))] == ["rejected"]
    assert len(list((tmp_path / "rejected").glob("*.reason.txt"))) == 1


def test_what_cannot_be_moved_is_refused_and_stops_no_other(tmp_path: Path) -> None:
    for name in ("sales_1.csv", "sales_2.csv"):
        os.mkfifo(tmp_path / name)
    # No folder can be made in its place.
    (tmp_path / "rejected").write_bytes(b"")
    found = list(run(Inbox(tmp_path, 0)))
    assert [one.outcome for one in found] == ["refused", "refused"]
    assert "it is a FIFO" in found[0].reason
    assert "cannot be moved" in found[0].reason


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """Something of ours that is no file of sales."""
    path = tmp_path / "precious"
    path.write_bytes(b"precious")
    return path


@pytest.mark.parametrize(("uid_offset", "mode", "why"), [(1, 0o700, "another user"), (0, 0o770, "by others")])
def test_copies_that_others_could_change_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid_offset: int, mode: int, why: str
) -> None:
    (tmp_path / ".taking").mkdir()
    (tmp_path / ".taking").chmod(mode)
    uid = os.geteuid() + uid_offset
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    with pytest.raises(Refused, match=why), Inbox(tmp_path, 0).held():
        pass
    assert list((tmp_path / ".taking").iterdir()) == []


def test_what_could_not_be_removed_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that we may not write to, and one in which only owners may remove."""
    path = tmp_path / "sales_1.csv"
    path.write_bytes(b"content\n")
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_, **__: False)
        (found,) = run(Inbox(tmp_path, 0))
    assert found.outcome == "refused"
    assert "could not be removed" in found.reason
    tmp_path.chmod(0o1777)
    inbox = Inbox(tmp_path, 0)
    with inbox.held(), monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 4_000_000)
        with pytest.raises(Refused, match="could not be removed"):
            inbox.copy(inbox.waiting()[0])
    assert path.exists()


def test_a_copy_of_what_was_taken_that_cannot_be_removed_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sales_1.csv"
    path.write_bytes(b"content\n")
    sha256 = hashlib.sha256(b"content\n").hexdigest()
    known = {sha256: FileRecord(sha256, "sales_0.csv", 7, AT, "DONE", 1, 1)}
    rename = Path.rename

    def refusing(self: Path, target: Path) -> Path:
        if self == path:
            raise PermissionError(1, "Operation not permitted")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refusing)
    (found,) = run(Inbox(tmp_path, 0), known)
    assert (found.outcome, found.reason) == (
        "refused",
        "its content was taken as sales_0.csv, and it cannot be removed from the inbox: Operation not permitted",
    )
    assert Inbox(tmp_path, 0).copies() == []


@pytest.mark.parametrize("link", [".taking", ".taking/lock"])
def test_a_link_in_place_of_what_is_ours_stops_the_run(tmp_path: Path, precious: Path, link: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = tmp_path / "inbox" / link
    path.parent.mkdir(parents=True)
    path.symlink_to(elsewhere if link == ".taking" else precious)
    with pytest.raises(Refused, match=r"\.taking"), Inbox(tmp_path / "inbox", 0).held():
        pass
    assert precious.read_bytes() == b"precious"
    assert list(elsewhere.iterdir()) == []


def test_a_link_in_place_of_what_we_write_goes_unfollowed(tmp_path: Path, precious: Path) -> None:
    inbox = Inbox(tmp_path, 0)
    with inbox.held():
        (tmp_path / ".taking/partial").symlink_to(precious)
        copy, shown = copied(inbox, tmp_path, b"sales_1.csv")
        (tmp_path / "rejected").mkdir()
        reason = tmp_path / "rejected/sales_1.csv.reason.txt"
        reason.symlink_to(precious)
        inbox.reject(copy.sha256, shown, "why")
    assert precious.read_bytes() == b"precious"
    assert (tmp_path / "rejected/sales_1.csv").read_bytes() == b"sales_1.csv\n"
    assert not reason.is_symlink()
    assert reason.read_text() == "why\n"


def test_a_left_over_of_a_killed_run_is_written_anew(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, 0)
    with inbox.held():
        (tmp_path / ".taking/partial").write_bytes(b"much more than there is now")
        copy, _ = copied(inbox, tmp_path, b"sales_1.csv")
    assert inbox.path_of(copy.sha256).read_bytes() == b"sales_1.csv\n"


def test_a_file_settles_after_any_change_and_a_renamed_one_for_less_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox(tmp_path, 5)
    for name in ("sales_written.csv", "sales_renamed.csv"):
        (tmp_path / name).write_bytes(b"\n")
    path = tmp_path / "sales_renamed.csv"

    def complete(seconds: float) -> list[str]:
        """So long after the newest change."""
        at = max(one.since for one in inbox.waiting()) + seconds
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: at)
            return sorted(one.name for one in inbox.waiting() if one.is_complete)

    # As of a rename: only the second time is new.
    os.utime(path, (0, 0))
    assert [complete(seconds) for seconds in (0.5, 1.5, 6)] == [
        [],
        ["sales_renamed.csv"],
        ["sales_renamed.csv", "sales_written.csv"],
    ]
    # A file that is written to after that is waited for as any other.
    path.write_bytes(b"more\n")
    assert complete(1.5) == []


def test_a_renamed_file_settles_for_no_longer_than_the_setting(tmp_path: Path) -> None:
    (tmp_path / "sales_1.csv").write_bytes(b"\n")
    os.utime(tmp_path / "sales_1.csv", (0, 0))
    assert [one.is_complete for one in Inbox(tmp_path, 0).waiting()] == [True]


def run(inbox: Inbox, files: dict[str, FileRecord] | None = None) -> list[FileResult]:
    """A run over what needs no more of the source than that it is there."""
    source = SimpleNamespace(files=files or {}, release=lambda: None, note_ends=lambda: None)
    with inbox.held():
        return list(Intake(inbox, cast(Source, source), False).run())
