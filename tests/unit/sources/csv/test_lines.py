"""Records are what the csv module reads, wherever a block begins; what it could not read alone is set aside alone."""

from __future__ import annotations

import csv
import io
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sources.csv import records
from sources.csv.records import Dialect, Place, Record, blocks
from tests.support.csv_rows import opened

COLUMNS = 3
Found = tuple[list[tuple[int, tuple[str, ...]]], list[tuple[int, str]]]


def read_blocks(content: bytes) -> list[list[Record]]:
    """The blocks, each read from the place behind the former one, as after a kill."""
    read: list[list[Record]] = []
    place = Place(0, 1)
    with opened(content) as fd:
        while block := next(blocks(fd, place, Dialect(","), COLUMNS), None):
            read.append(block)
            assert place.offset < block[-1].end.offset
            place = block[-1].end
        assert read == list(blocks(fd, Place(0, 1), Dialect(","), COLUMNS))
    assert place.offset >= len(content)
    return read


def read(content: bytes, block_bytes: int = 1 << 20) -> Found:
    """Line and cells of each sound record, line and reason of each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK_BYTES", block_bytes)
        all_records = [record for block in read_blocks(content) for record in block]
    sound = [(record.line, tuple(record.cells)) for record in all_records if record.cells]
    return sound, [(record.line, record.reason) for record in all_records if record.reason]


def oracle(content: bytes) -> Found:
    """The csv module, begun anew on the line behind one whose quote stays open."""
    physical = content.decode().splitlines(keepends=True)
    sound, bad = [], []
    at = 0
    while at < len(physical):
        reader = csv.reader([*physical[at:], "end"])
        begin = at
        for row in reader:
            if row == ["end"] and begin == len(physical):
                at = begin
                break
            upto = at + reader.line_num
            if upto > len(physical):
                bad.append((begin + 1, ""))
                at = begin + 1
                break
            if len(row) == COLUMNS and not any(row):
                pass
            elif len(row) == COLUMNS:
                sound.append((begin + 1, tuple(row)))
            elif row:
                bad.append((begin + 1, ""))
            begin = upto
    return sound, sorted(bad)


CELLS = st.text(st.sampled_from('a", ;ü\n'), max_size=5)


@settings(deadline=None)
@given(
    st.lists(st.lists(CELLS, min_size=2, max_size=4), max_size=12),
    st.sampled_from((csv.QUOTE_ALL, csv.QUOTE_MINIMAL)),
)
def test_what_was_written_is_read(rows: list[list[str]], quoting: Literal[0, 1]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting, lineterminator="\n").writerows(rows)
    sound, bad = read(text.getvalue().encode())
    assert [cells for _, cells in sound] == [tuple(row) for row in rows if len(row) == COLUMNS and any(row)]
    assert len(bad) == sum(len(row) != COLUMNS for row in rows)


@settings(deadline=None)
@given(st.text(st.sampled_from('aü",\n'), max_size=80))
@example('"",,\na,"",\n,"",""\n"""",,')
def test_whatever_the_quotes_it_is_read_as_the_csv_module_does(text: str) -> None:
    sound, bad = read(text.encode())
    expected, refused = oracle(text.encode())
    assert sound == expected
    assert [line for line, _ in bad] == [line for line, _ in refused]


RECORDS = (
    "a,b,c\n", 'a,"b\nb",c\n', 'a,5" b,c\n', '"a,b,c\n', "a,b\n", "\n", "a,b\0,c\n", "x" * 50 + "\n", "ü,ü,ü\r\n",
    "a\rb,c,d\n", '"a","b","c"\n',
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.sampled_from(RECORDS), max_size=40), st.integers(41, 120))
def test_a_record_fares_alike_wherever_a_block_begins(texts: list[str], block_bytes: int) -> None:
    content = "".join(texts).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MAX_RECORD_BYTES", 40)
        assert read(content, block_bytes) == read(content)


# Shorter than a row of three cells may be, so that open quotes, long rows and ends of blocks all come up.
SHORT = 12


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('a,;"\r\n'), max_size=120), st.integers(SHORT + 1, 60), st.integers(1, 9))
def test_bytes_of_any_kind_fare_alike_wherever_a_block_begins(text: str, block_bytes: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "MAX_RECORD_BYTES", SHORT)
        whole = read(text.encode())
        patch.setattr(records, "MOST_RECORDS", most)
        assert read(text.encode(), block_bytes) == whole


# The third and the fourth have quotes that open on one line and close on many.
OPEN = (b'"a,b,c\n', b'a,"b,c""\n', b'a"a,"b\n', b'5" a,b,"c\n', b'"""\n', b"\n", b'","\n', b'"' * 7 + b"\n")


@pytest.mark.parametrize("line", OPEN)
def test_open_quotes_are_read_in_time_that_grows_with_the_file(
    line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte is looked at a few times, whatever stays open."""
    looked_at = 0
    reader = csv.reader

    def counting(lines: Any, *dialect: Any, **more: Any) -> Any:
        nonlocal looked_at
        looked_at += sum(map(len, lines))
        return reader(lines, *dialect, **more)

    monkeypatch.setattr(csv, "reader", counting)
    content = line * (400_000 // len(line))
    with opened(content) as fd:
        read = [record for block in blocks(fd, Place(0, 1), Dialect(","), COLUMNS) for record in block]
    assert looked_at < 10 * len(content)
    assert sum(bool(record.cells or record.reason) for record in read) <= content.count(b"\n")


def test_a_block_holds_so_many_records_good_or_bad() -> None:
    """All that is written in one transaction, however short the rows are."""
    for line in (b"a\n", b"\n", b"a,b,c\n", b'a"\n', b'"\n'):
        read = read_blocks(line * 50_000)
        assert max(map(len, read)) <= records.MOST_RECORDS
        assert read[-1][-1].end.line == 50_001


LONE, OTHER = "holds a carriage return that ends no line", "is not UTF-8"
OPEN_QUOTE = "opens a quote that is not closed within 65536 bytes or before the end"


@pytest.mark.parametrize(
    ("content", "sound", "bad"),
    [
        (b"a,b\0,c\nd,e,f\n", ["def"], [(1, "holds a NUL")]),
        (b"a,b\rb,c\nd,e,f\n", ["def"], [(1, LONE)]),
        (b'a,"b\rb",c\nd,e,f\n', ["def"], [(1, LONE)]),
        ("a,b,c\nü,b,c\nd,ö,f\ng,h,i\n".encode("latin-1"), ["abc", "ghi"], [(2, OTHER), (3, OTHER)]),
        (b'a,"b,c\nd,e,f\n', ["def"], [(1, OPEN_QUOTE)]),
        (b"a,b,c\n" + b"x" * (3 << 20) + b"\nd,e,f\n", ["abc", "def"], [(2, "is longer than 65536 bytes")]),
        (b"a,b,c\nd,e,f", ["abc", "def"], []),
        (b'a,b,"c"', ["abc"], []),
    ],
    ids=["NUL", "return", "quoted return", "Latin-1", "open quote", "too long", "no end", "quoted end"],
)
def test_what_cannot_be_read_costs_its_record_only(
    content: bytes, sound: list[str], bad: list[tuple[int, str]]
) -> None:
    rows, refused = read(content)
    assert (["".join(cells) for _, cells in rows], refused) == (sound, bad)
    assert {line for line, _ in rows} == set(range(1, len(rows) + len(bad) + 1)) - {line for line, _ in bad}


def test_a_dead_letter_shows_a_cut_row() -> None:
    ((record,),) = read_blocks(b"a," + b"x" * 50_000 + b"\n")
    assert len(record.raw) == records.SHOWN_BYTES
