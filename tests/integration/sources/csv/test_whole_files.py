"""Files that are still written, packed, named otherwise, of one time, or wrong as a whole: what counts in the end."""

from __future__ import annotations

import gzip
import os
from decimal import Decimal

import pytest

from sources.csv import originals, wholeness
from sources.csv.ingest import waiting
from tests.support.csv_desk import Desk, Row, oracle, row
from tests.support.slow_writer import writer


def line(one: Row) -> str:
    """With the amount as the last column, so that a number may be cut."""
    cells = [one[name] for name in one if name != "amount"] + [one["amount"]]
    return ",".join(cell.replace(",", "").replace('"', "") for cell in cells)


def plain(number: int, **changes: str) -> Row:
    return row(number, product="TV", **changes)


HEADER = ",".join([name for name in plain(1) if name != "amount"] + ["amount"]) + "\n"


def test_row_12_a_slow_writer_is_waited_for(desk: Desk) -> None:
    """It pauses in the middle of a number, for as long as it likes: 10.00 never counts."""
    desk.put("sales_0.csv", [plain(0)])
    with writer(desk.inbox / "sales_1.csv", "w") as write:
        write(HEADER + line(plain(1, amount="10")))
        os.utime(desk.inbox / "sales_1.csv", (0, 0))
        assert [file.name for file in desk.take().files] == ["sales_0.csv"]
        assert {one.unfinished for one in waiting(desk.settings)} == {wholeness.OPEN}
        write("00.00\n" + line(plain(2)) + "\n")
        assert desk.take().files == ()
    (file,) = desk.take().files
    assert (file.outcome, file.counts.accepted) == ("taken", 2)
    assert desk.totals() == oracle([plain(0), plain(1, amount="1000.00"), plain(2)])


def test_row_12_what_a_writer_adds_after_the_taking_counts(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that cannot be seen, as on another machine, with a cut number that was taken after minutes of quiet."""
    for module in (wholeness, originals):
        monkeypatch.setattr(module, "is_written", lambda *_: False)
    monkeypatch.setattr(wholeness, "UNENDED_SECONDS", 0.0)
    with writer(desk.inbox / "sales_1.csv", "w") as write:
        write(HEADER + line(plain(1)) + "\n" + line(plain(2, amount="10")))
        (file,) = desk.take().files
        assert (file.outcome, file.counts.accepted) == ("taken", 2)
        assert desk.take().files == ()
        write("00.00\n" + line(plain(3)) + "\n")
    found = desk.take().files
    assert [(file.name, file.outcome) for file in found] == [
        ("sales_1.csv", "written_after"),
        ("sales_1.csv", "taken"),
    ]
    counts = found[1].counts
    assert (counts.duplicates, counts.corrections, counts.accepted) == (1, 1, 2)
    assert desk.totals() == oracle([plain(1), plain(2, amount="1000.00"), plain(3)])
    assert desk.is_sound()
    assert desk.take().files == ()


def test_a_retracted_file_does_not_come_back_by_a_late_writer(desk: Desk) -> None:
    path = desk.put("sales_1.csv", [plain(1)])
    second = desk.inbox / ".second"
    os.link(path, second)
    desk.take()
    desk.retract("sales_1.csv")
    with second.open("a") as file:
        file.write("more\n")
    assert desk.take().files == ()
    assert desk.totals() == {}


def test_row_13_names_in_capitals_and_packed_files_are_taken_by_their_content(desk: Desk) -> None:
    content = desk.put("SALES_1.CSV", [plain(1), plain(2)]).read_bytes()
    (desk.inbox / "Sales_2.csv.gz").write_bytes(gzip.compress(content))
    (desk.inbox / "sales_3.CSV.GZ").write_bytes(gzip.compress((HEADER + line(plain(3)) + "\n").encode()))
    (desk.inbox / "sales-11.csv").write_bytes(content)
    outcomes = {file.name: (file.outcome, file.counts.accepted) for file in desk.take().files}
    assert outcomes == {
        "SALES_1.CSV": ("taken", 2),
        "Sales_2.csv.gz": ("copy", 0),
        "sales_3.CSV.GZ": ("taken", 1),
    }
    assert desk.totals() == oracle([plain(1), plain(2), plain(3)])
    kept = {name.rpartition("/")[2] for name in desk.files("processed/*/*/*/*")}
    assert kept == {"SALES_1.CSV", "Sales_2.csv", "sales_3.CSV"}
    assert desk.files("sales*") == ["sales-11.csv"]
    packed = desk.inbox.parent / "packed.csv.gz"
    packed.write_bytes(gzip.compress(content))
    try:
        found = desk.check(packed)
        assert (found.counts.duplicates, found.is_clean) == (2, False)
        assert "packed.csv.gz is not recognised: the inbox takes sales_*.csv" in found.unrecognised
        assert desk.check(desk.inbox / "sales-11.csv").unrecognised != ""
        assert desk.retract(str(packed)).taken_back == 2
    finally:
        packed.unlink()


def test_row_14_of_two_files_of_one_time_the_greater_number_wins_and_it_is_told(desk: Desk) -> None:
    for name, amount in (("sales_10.csv", "12"), ("sales_9.csv", "10")):
        os.utime(desk.put(name, [plain(1, amount=amount), plain(2)]), (5, 5))
    os.utime(desk.put("sales_11.csv", [plain(2, amount="7")]), (60, 60))
    found = desk.take().files
    assert [(file.name, dict(file.disagrees)) for file in found] == [
        ("sales_9.csv", {}),
        ("sales_10.csv", {"sales_9.csv": 1}),
        ("sales_11.csv", {}),
    ]
    assert desk.totals() == oracle([plain(1, amount="12"), plain(2, amount="7")])
    # Also of one that comes in a run of its own.
    os.utime(desk.put("sales_12.csv", [plain(1, amount="13")]), (5, 5))
    (file,) = desk.take().files
    assert file.disagrees == {"sales_10.csv": 1}


def test_row_18_a_file_that_is_wrong_as_a_whole_has_one_reason_and_no_dead_letters(desk: Desk) -> None:
    rows = [plain(n, city="Köln") for n in range(20)]
    text = HEADER + "".join(line(one) + "\n" for one in rows)
    (desk.inbox / "sales_1.csv").write_bytes(text.encode("cp1252"))
    (desk.inbox / "sales_2.csv").write_text(text.replace(",DE,", ",DE,x,"), encoding="utf-8")
    files = {file.name: (file.outcome, file.counts.rows) for file in desk.take().files}
    assert files == {"sales_1.csv": ("rejected", 0), "sales_2.csv": ("rejected", 0)}
    reason = (desk.inbox / "rejected/sales_1.csv.reason.txt").read_text()
    assert "not in UTF-8: 20 lines" in reason
    assert "has 11 fields, the header has 10" in (desk.inbox / "rejected/sales_2.csv.reason.txt").read_text()
    assert (desk.events(), desk.dead_letters()) == ([], {})
    # Mended, it is taken; a few wrong rows are reported one by one, and counted by reason.
    (desk.inbox / "sales_1.csv").write_text(text.replace(",DE,", ",,", 2), encoding="utf-8")
    found = desk.check(desk.inbox / "sales_1.csv")
    assert found.reasons == {"column country: is empty": 2}
    (file,) = desk.take().files
    assert (file.outcome, file.counts.accepted, file.counts.rejected) == ("taken", 18, 2)
    assert sum(event["amount"] for event in desk.events()) == 18 * Decimal("19.9900")
