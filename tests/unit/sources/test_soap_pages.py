"""Which pages may stand behind a cursor."""

from __future__ import annotations

import pytest
from lxml import etree

from sources.errors import Refused
from sources.soap.pages import Bad, Page, _xml
from sources.soap.poll import _behind


def _bad(count: int) -> list[Bad]:
    return [Bad(index, "odd", b"") for index in range(count)]


def test_the_end_of_the_list_may_come_without_a_cursor_and_the_old_one_stays() -> None:
    assert _behind("c5", Page([], [], "", False), 500).next_cursor == "c5"


@pytest.mark.parametrize(
    "page", [Page([], _bad(1), "", False), Page([], [], "", True)], ids=["records", "more"]
)
def test_a_page_without_a_cursor_to_go_on_from_is_refused(page: Page) -> None:
    with pytest.raises(Refused, match="the whole list again"):
        _behind("c5", page, 500)


def test_an_empty_list_has_no_cursor_yet() -> None:
    assert _behind("", Page([], [], "", False), 500).next_cursor == ""


def test_a_page_of_more_records_than_were_asked_for_is_refused() -> None:
    assert _behind("", Page([], _bad(500), "c1", False), 500).next_cursor == "c1"
    with pytest.raises(Refused, match="501 records"):
        _behind("", Page([], _bad(501), "c1", False), 500)


def test_a_dead_letter_is_no_larger_than_a_person_reads() -> None:
    record = etree.fromstring(f"<confirmation><payment_id>{'x' * 1_200_000}</payment_id></confirmation>")
    assert _xml(record).startswith(b"<confirmation><payment_id>xxx")
    assert len(_xml(record)) == 10_000
