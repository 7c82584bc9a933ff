"""What may lie in the inbox, and what becomes of it."""

from __future__ import annotations

import os
import socket
from decimal import Decimal

import pytest

from kafka_client.errors import Refused
from sources.csv import retract
from sources.csv.inbox import Inbox
from sources.csv.ingest import waiting
from tests.support.csv_desk import Desk, oracle, row
from tests.support.waiting import wait_until


def test_a_copy_under_another_name_is_not_read_again(desk: Desk) -> None:
    desk.put("sales_1.csv", [row(1), row(2)])
    desk.take()
    desk.put("sales_2.csv", [row(1), row(2)])
    (file,) = desk.take().files
    assert (file.outcome, file.counts.rows) == ("copy", 0)
    assert len(desk.events()) == 2
    assert desk.files("sales_*.csv") == []
    assert len(desk.files("processed/*/*/*/sales_*.csv")) == 2


def test_new_content_under_an_old_name_is_read(desk: Desk) -> None:
    desk.put("sales_1.csv", [row(1)])
    desk.take()
    desk.put("sales_1.csv", [row(2)])
    desk.take()
    assert desk.totals() == oracle([row(1), row(2)])
    assert len(desk.files("processed/*/*/*/sales_1*.csv")) == 2


def test_duplicates_and_corrections_across_files(desk: Desk) -> None:
    first = [row(1), row(2), row(3), row(1)]
    second = [row(1), row(2, amount="5"), row(4), row(4, city="Bonn")]
    third = [
        row(3, operation="REVERSAL"),
        row(9, operation="REVERSAL"),
        row(2, operation="SALE", amount="5.00"),
    ]
    results = []
    for name, rows in (("a", first), ("b", second), ("c", third)):
        desk.put(f"sales_{name}.csv", rows)
        results.append(desk.take().counts)
    assert desk.totals() == oracle(first + second + third)
    found = [(c.rows, c.accepted, c.duplicates, c.corrections, c.reversals, c.rejected) for c in results]
    assert found == [(4, 3, 1, 0, 0, 0), (4, 3, 1, 2, 0, 0), (3, 0, 1, 0, 1, 1)]
    (letter,) = desk.dead_letters().values()
    assert (letter["origin"], letter["offset"]) == ("csv/sales_c.csv", 3)
    assert "no file contains" in letter["reason"]
    # Both halves of a correction are recorded together, the reversal first.
    events = sorted((e for e in desk.events() if e["sale_id"] == "sale-2"), key=lambda e: e["seq"])
    assert [e["operation"] for e in events] == ["SALE", "REVERSAL", "SALE"]
    assert events[1]["seq"] + 1 == events[2]["seq"]
    assert events[1]["recorded_at"] == events[2]["recorded_at"]
    assert events[1]["amount"] == Decimal("-19.99")


def test_bad_rows_go_to_dead_letters_with_file_line_column_and_reason(desk: Desk) -> None:
    desk.put("sales_1.csv", [row(1), row(2, amount="x"), row(3, product="a\nb"), row(4, currency="eur")])
    (file,) = desk.take().files
    assert (file.counts.accepted, file.counts.rejected) == (2, 2)
    letters = sorted(desk.dead_letters().values(), key=lambda one: one["offset"])
    assert [(one["origin"], one["offset"], one["reason"]) for one in letters] == [
        ("csv/sales_1.csv", 3, "line 3: column amount: is no number like 12.50"),
        ("csv/sales_1.csv", 6, "line 6: column currency: is not three capital letters"),
    ]
    assert letters[0]["value"].startswith(b"sale-2,")


def test_the_run_says_what_came_of_it(desk: Desk) -> None:
    desk.put("sales_1.csv", [row(1), row(2, currency="USD"), row(3, amount="x")])
    done = desk.take()
    assert done.counts.amounts == {"EUR": Decimal("19.9900"), "USD": Decimal("19.9900")}
    assert [one["sale_id"] for one in done.preview] == ["sale-1", "sale-2"]
    assert done.preview[0]["amount"] == "19.9900"
    assert done.rate > 0


def test_what_is_no_csv_goes_to_rejected_with_the_reason(desk: Desk) -> None:
    (desk.inbox / "sales_1.csv").write_bytes(b"\x89PNG\r\n\x1a\n")
    os.utime(desk.inbox / "sales_1.csv", (0, 0))
    (file,) = desk.take().files
    assert file.outcome == "rejected"
    assert desk.files("rejected/*") == ["rejected/sales_1.csv", "rejected/sales_1.csv.reason.txt"]
    assert "does not name the columns" in (desk.inbox / "rejected/sales_1.csv.reason.txt").read_text()
    # The frontier is not held by it.
    position, _ = desk.ledger()
    assert position is not None
    assert position.frontier is None


def test_links_fifos_folders_and_sockets_are_rejected_unopened(desk: Desk) -> None:
    secret = desk.inbox.parent / "secret.csv"
    secret.write_text("sale_id\n")
    (desk.inbox / "sales_link.csv").symlink_to(secret)
    (desk.inbox / "sales_dangling.csv").symlink_to("/nowhere")
    os.mkfifo(desk.inbox / "sales_fifo.csv")
    (desk.inbox / "sales_folder.csv").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(desk.inbox / "sales_socket.csv"))
        done = desk.take()
    assert {file.name: file.reason for file in done.files} == {
        "sales_link.csv": "it is a symbolic link, not a regular file",
        "sales_dangling.csv": "it is a symbolic link, not a regular file",
        "sales_fifo.csv": "it is a FIFO, not a regular file",
        "sales_folder.csv": "it is a folder, not a regular file",
        "sales_socket.csv": "it is a socket, not a regular file",
    }
    assert {file.outcome for file in done.files} == {"rejected"}
    assert desk.files("sales_*") == []
    assert len(desk.files("rejected/*.reason.txt")) == 5
    assert secret.read_text() == "sale_id\n"
    assert desk.take().files == ()


def test_a_link_that_takes_a_files_place_is_not_followed(desk: Desk) -> None:
    """Between listing and opening."""
    inbox = Inbox(desk.inbox, 0)
    path = desk.put("sales_1.csv", [row(1)])
    with inbox.held():
        (found,) = inbox.waiting()
        path.unlink()
        path.symlink_to("/etc/passwd")
        with pytest.raises(Refused, match="cannot be read"):
            inbox.copy(found)


def test_a_file_that_grows_while_it_is_read_waits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    path = desk.put("sales_1.csv", [row(1), row(2)])
    read, rest = os.pread, [b"sale-3,2026-11-22T10:00:00Z,K,DE,s,A,t,1,1,EUR\r\n"]

    def growing(fd: int, size: int, offset: int) -> bytes:
        data = read(fd, size, offset)
        if rest and data.startswith(b"sale_id"):
            with path.open("ab") as file:
                file.write(rest.pop())
        return data

    monkeypatch.setattr(os, "pread", growing)
    (file,) = desk.take().files
    assert file.outcome == "changing"
    assert desk.events() == []
    (file,) = desk.take().files
    assert (file.outcome, file.counts.accepted) == ("taken", 3)


def test_a_file_that_is_removed_while_it_is_read_is_nobodys(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = desk.put("sales_1.csv", [row(1)])
    read = os.pread

    def removing(fd: int, size: int, offset: int) -> bytes:
        data = read(fd, size, offset)
        if data.startswith(b"sale_id"):
            path.unlink()
        return data

    monkeypatch.setattr(os, "pread", removing)
    (file,) = desk.take().files
    assert file.outcome == "changing"
    assert (desk.events(), desk.files("**/*.csv")) == ([], [])


def test_a_file_written_in_place_waits_until_it_settles(desk: Desk) -> None:
    desk.settings = desk.settings.model_copy(update={"csv_settle_seconds": 600})
    renamed = desk.put("sales_renamed.csv", [row(1)])
    written = desk.inbox / "sales_written.csv"
    written.write_bytes(renamed.read_bytes())
    complete = wait_until(
        lambda: [one.name for one in waiting(desk.settings) if one.is_complete], 60, "complete file"
    )
    assert complete == ["sales_renamed.csv"]
    desk.settings = desk.settings.model_copy(update={"csv_settle_seconds": 1.5})
    wait_until(lambda: all(one.is_complete for one in waiting(desk.settings)), 60, "settled file")


def test_only_the_inbox_itself_is_looked_at(desk: Desk) -> None:
    desk.put("sales_1.csv", [row(1)])
    (desk.inbox / "sub").mkdir()
    (desk.inbox / "sub/sales_2.csv").write_text("x")
    (desk.inbox / "notes.txt").write_text("x")
    assert [one.name for one in waiting(desk.settings)] == ["sales_1.csv"]


def test_a_name_of_any_bytes_is_taken(desk: Desk) -> None:
    path = desk.put("sales_1.csv", [row(1)])
    os.rename(path, os.fsencode(desk.inbox) + b"/sales_\xff\n.csv")  # noqa: PTH104
    (file,) = desk.take().files
    assert (file.name, file.outcome) == ("sales_�\n.csv", "taken")


def test_one_process_at_a_time_takes_files(desk: Desk) -> None:
    with Inbox(desk.inbox, 0).held(), pytest.raises(Refused, match="another process"):
        desk.take()


def test_a_large_file_is_taken_in_flat_memory(desk: Desk) -> None:
    """60 MB, and 32 MB of them in one line."""
    import resource

    line = "sale-{0},2026-11-22T10:00:00Z,Köln,DE,s{1},Ada,Espresso machine,2,19.99,EUR\n"
    desk.put("sales_1.csv", [row("first")])
    desk.take()
    with (desk.inbox / ".x").open("w", encoding="utf-8") as file:
        file.write(",".join(row(1)) + "\n")
        file.writelines(line.format(n, n % 100) for n in range(150_000))
        file.write("x" * (32 << 20) + "\n")
        file.writelines(line.format(n, n % 100) for n in range(150_000, 200_000))
    (desk.inbox / ".x").rename(desk.inbox / "sales_2.csv")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (found,) = desk.take().files
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (found.counts.accepted, found.counts.rejected) == (200_000, 1)
    assert desk.run("select count(*), sum(amount) from csv_sales") == [(200_001, 200_001 * 199_900)]
    assert grown < 150 * 1024


def test_check_says_what_would_be_and_changes_nothing(desk: Desk) -> None:
    desk.put("sales_1.csv", [row(1), row(2)])
    desk.take()
    before = len(desk.events()), desk.run("select * from csv_sales order by 1")
    rows = [
        row(1, operation=""),
        row(2, amount="1", operation=""),
        row(3, amount="x", currency="e", operation=""),
    ]
    rows += [row(4, operation="SALE"), row(4, operation="REVERSAL"), row(4, operation="REVERSAL")]
    path = desk.put("other.csv", rows)
    found = desk.check(path)
    counts = found.counts
    assert (counts.accepted, counts.duplicates, counts.corrections, counts.reversals) == (2, 1, 1, 1)
    assert [(one.line, one.reason.split(":")[0]) for one in found.refusals] == [
        (4, "column amount"),
        (7, "column operation"),
    ]
    assert "; column currency: is not three" in found.refusals[0].reason, "all that is wrong, at once"
    assert not found.is_clean
    assert (len(desk.events()), desk.run("select * from csv_sales order by 1")) == before
    assert path.exists()
    fifo = desk.inbox / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(Refused, match="FIFO"):
        desk.check(fifo)


def test_retract_takes_back_what_still_counts(desk: Desk) -> None:
    first = [row(n) for n in range(10)]
    second = [row(0, amount="7"), row(1, operation="REVERSAL"), row(2)]
    path = desk.put("sales_1.csv", first)
    content = path.read_bytes()
    desk.take()
    desk.put("sales_2.csv", [one | {"operation": one.get("operation", "")} for one in second])
    desk.take()
    done = desk.retract("sales_1.csv")
    assert (done.taken_back, done.left) == (8, 2)
    assert done.amount == {"EUR": Decimal("-159.92")}
    assert desk.totals() == oracle([row(0, amount="7")])
    assert desk.is_sound()
    with pytest.raises(Refused, match="RETRACTED"):
        desk.retract("sales_1.csv")
    with pytest.raises(Refused, match="not among"):
        desk.retract("sales_7.csv")
    # Afterwards the same content may be taken again.
    (desk.inbox / ".x").write_bytes(content)
    (desk.inbox / ".x").rename(path)
    (file,) = desk.take().files
    assert (file.outcome, file.counts.accepted, file.counts.corrections) == ("taken", 10, 1)
    assert desk.totals() == oracle(first)
    position, _ = desk.ledger()
    assert position is not None
    assert position.frontier is None


def test_retracting_holds_the_frontier_until_its_last_reversal(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several transactions; a window that was called final meanwhile would be wrong."""
    monkeypatch.setattr(retract, "BATCH", 3)
    desk.put("sales_1.csv", [row(n) for n in range(8)])
    desk.take()
    before = len(desk.positions())
    assert desk.retract("sales_1.csv").taken_back == 8
    held, *frontiers = [position["frontier"] for position in desk.positions()[before:]]
    assert held is not None
    assert frontiers == [held, held, None]
    reversals = [event for event in desk.events() if event["operation"] == "REVERSAL"]
    assert len(reversals) == 8
    assert all(event["recorded_at"] > held for event in reversals)
