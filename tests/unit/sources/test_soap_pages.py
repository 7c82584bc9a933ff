"""How an answer's bytes are read, whatever they hold, and which pages may follow a cursor."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lxml import etree

from contracts.soap import NAMESPACE, WSDL
from kafka_client.errors import ElectroRedError, Refused
from simulators.payments import envelope
from sources.soap.confirmation import Confirmation
from sources.soap.errors import Faulted, Unavailable, Untrusted
from sources.soap.following import behind, refuse_mostly_bad
from sources.soap.pages import Bad, Page, Reader, _xml
from sources.soap.transport import Answer

READER = Reader(WSDL)
AT = datetime(2026, 11, 2, 12, tzinfo=UTC)
VALUES = ("p1", "s1", "1000.00", "EUR", "CONFIRMED", "2026-11-02T12:00:00+00:00")
CONFIRMATION = Confirmation("p1", "s1", Decimal("1000.00"), "EUR", "CONFIRMED", AT)


def read(content: bytes | str, *, charset: str | None = "utf-8", status: int = 200) -> Page:
    return READER.page(Answer(status, charset, content.encode() if isinstance(content, str) else content))


def page(*, cursor: str = "c1", more: str = "true", behind: str = "", **texts: str) -> str:
    """A page of one record whose elements have these contents as XML; `behind` stands after the last."""
    names = ("payment_id", "sale_id", "amount", "currency", "status", "confirmed_at")
    fields = "".join(
        f"<p:{name}>{texts.get(name, value)}</p:{name}>" for name, value in zip(names, VALUES, strict=True)
    )
    return (
        f'<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:p="{NAMESPACE}" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><e:Body><p:GetPaymentConfirmationsResponse>'
        f"<p:confirmation>{fields}{behind}</p:confirmation><p:next_cursor>{cursor}</p:next_cursor>"
        f"<p:more>{more}</p:more></p:GetPaymentConfirmationsResponse></e:Body></e:Envelope>"
    )


def as_text(piece: str) -> str:
    return piece


def as_cdata(piece: str) -> str:
    return f"<![CDATA[{piece}]]>"


def as_references(piece: str) -> str:
    return "".join(f"&#{ord(character)};" for character in piece)


# What stands within a text and is no part of it, and what may not stand there.
NOTHING = ("<?x?>", "<?x 9?>", "<!--9-->", "<![CDATA[]]>", "")
FORBIDDEN = ("<b/>", "<b>9</b>", "&nine;", "<p:amount>9</p:amount>", "<i:include xmlns:i='urn:i' href='f'/>")
NAMES = ("payment_id", "sale_id", "amount", "currency", "status", "confirmed_at", "cursor", "more")
PLAIN = dict(zip(NAMES, (*VALUES, "c1", "true"), strict=True))


@st.composite
def written(draw: st.DrawFn, value: str) -> str:
    """A value as XML, in pieces and with what an XML document may have between them."""
    cuts = sorted(draw(st.lists(st.integers(0, len(value)), max_size=3)))
    pieces = [value[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(value)], strict=True)]
    ways: list[Callable[[str], str]] = [as_text, as_cdata, as_references]
    between = (
        st.sampled_from([*NOTHING, *FORBIDDEN]) if draw(st.integers(0, 3)) == 0 else st.sampled_from(NOTHING)
    )
    return "".join(draw(st.sampled_from(ways))(piece) + draw(between) for piece in pieces)


@given(
    st.fixed_dictionaries(
        {name: written(value) for name, value in zip(NAMES, (*VALUES, "c1", "true"), strict=True)}
    )
)
@example(dict(zip(NAMES, (*VALUES, "c1", "true"), strict=True)) | {"amount": "10<?x?>00.00"})
@example(dict(zip(NAMES, (*VALUES, "c1", "true"), strict=True)) | {"sale_id": "s<?x?>1"})
def test_row_19_a_value_is_the_whole_text_or_the_record_is_refused(texts: dict[str, str]) -> None:
    is_clean = not any(mark in text for text in texts.values() for mark in FORBIDDEN)
    try:
        found = read(page(**texts))
    except ElectroRedError:
        assert not is_clean
        return
    assert (found.next_cursor, found.more) == ("c1", True)
    if is_clean:
        assert found.good == [CONFIRMATION]
    else:
        assert (found.good, len(found.bad)) == ([], 1)


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"amount": " \n1000.00\t"}, Decimal("1000.00")),
        ({"amount": "+1000."}, Decimal(1000)),
        ({"amount": "-.5"}, Decimal("-0.5")),
        ({"amount": "1<!-- 2 -->3<?x 4?>5"}, Decimal(135)),
        ({"confirmed_at": " 2026-11-02T13:00:00+01:00 "}, AT),
        ({"confirmed_at": "2026-11-02T12:00:00.1234567Z"}, AT + timedelta(microseconds=123_456)),
        ({"sale_id": " s1 "}, "s1"),
        ({"sale_id": "a&amp;b&#x2F;"}, "a&b/"),
        ({"currency": "EUR<?x?>"}, "EUR"),
    ],
)
def test_row_19_schema_and_reader_see_one_text(changes: dict[str, str], value: object) -> None:
    (name,) = changes
    (found,) = read(page(**changes)).good
    assert getattr(found, name) == value


@pytest.mark.parametrize(
    ("text", "more"),
    [("true", True), ("1", True), (" true\n", True), (" false ", False), ("fal<?x?>se", False), ("0", False)],
)
def test_row_19_whether_there_is_more_is_read_as_the_schema_reads_it(text: str, more: bool) -> None:
    """zeep takes `true` with blanks around it for false: the poll would end before the list does."""
    assert read(page(more=text)).more is more


@pytest.mark.parametrize(
    "behind_or_text",
    [
        {"behind": "<p:amount>9</p:amount>"},
        {"behind": "<amount>9</amount>"},
        {"behind": "<x:amount xmlns:x='urn:x'>9</x:amount>"},
        {"behind": "<p:loyalty/><p:sale_id>s2</p:sale_id>"},
        {"behind": "9"},
    ],
    ids=lambda given: next(iter(given.values())),
)
def test_row_19_a_field_that_is_there_again_makes_the_record_bad(behind_or_text: dict[str, str]) -> None:
    found = read(page(**behind_or_text))
    assert (found.good, len(found.bad)) == ([], 1)


@pytest.mark.parametrize(
    "attribute", ['xsi:nil="true"', 'xsi:nil="false"', 'xsi:type="p:SaleId"', 'href="#id1"', 'xsi:type="x:y"']
)
def test_row_19_what_would_make_a_value_something_else_makes_the_record_bad(attribute: str) -> None:
    found = read(page().replace("<p:amount>", f"<p:amount {attribute}>"))
    assert (found.good, len(found.bad)) == ([], 1)


def test_row_19_what_says_of_a_value_what_it_is_changes_nothing() -> None:
    assert read(page().replace("<p:amount>", '<p:amount xsi:type="p:Amount">')).good == [CONFIRMATION]


def test_row_19_prefixes_mean_nothing() -> None:
    other = page().replace("xmlns:p=", "xmlns=").replace("<p:", "<").replace("</p:", "</")
    other = other.replace("xmlns:e=", "xmlns:p=").replace("<e:", "<p:").replace("</e:", "</p:")
    assert read(other).good == [CONFIRMATION]


@pytest.mark.parametrize(
    ("charset", "declared", "text", "is_read"),
    [
        ("utf-8", "UTF-8", "ü", True),
        (None, None, "ü", True),
        (None, "utf8", "ü", True),
        ("iso-8859-1", None, "ü", False),
        (None, "windows-1252", "ü", False),
        ("us-ascii", None, "ü", False),
        ("iso-8859-1", "ISO-8859-1", "u", True),
        ("windows-1252", None, "&#252;", True),
        ("utf-7", None, "+APw-", False),
        ("utf-16", None, "u", False),
        (None, "ibm037", "u", False),
        ("no-such", None, "u", False),
    ],
)
def test_row_19_bytes_that_headers_or_document_call_something_else_are_refused(
    charset: str | None, declared: str | None, text: str, is_read: bool
) -> None:
    """Or `Ã¼` would be read as `ü`."""
    begin = "" if declared is None else f'<?xml version="1.0" encoding="{declared}"?>'
    content = begin + page(sale_id=text)
    if is_read:
        (found,) = read(content, charset=charset).good
        assert found.sale_id == text.replace("&#252;", "ü")
    else:
        with pytest.raises(Untrusted, match="not in UTF-8"):
            read(content, charset=charset)


def test_row_19_a_mark_of_utf_8_is_no_text() -> None:
    assert read(b"\xef\xbb\xbf" + page().encode()).good == [CONFIRMATION]


TWO = page().replace("</e:Body>", "</e:Body><e:Body/>")
TWICE = page().replace("<e:Body>", "<e:Body><p:GetPaymentConfirmationsResponse/>")
AND_A_FAULT = page().replace("</e:Body>", "<e:Fault><faultcode>c</faultcode></e:Fault></e:Body>")
NONE = page().replace("<e:Body>", "<e:Header>").replace("</e:Body>", "</e:Header>")
TWELVE = page().replace("soap/envelope/", "soap-envelope/")
NEXT_AGAIN = page().replace("</p:more>", "</p:more><p:next_cursor>c9</p:next_cursor>")
LATE_RECORD = page().replace("</p:more>", "</p:more><p:confirmation/>")


@pytest.mark.parametrize("content", [TWO, TWICE, AND_A_FAULT, NONE, TWELVE, NEXT_AGAIN, LATE_RECORD])
def test_row_19_an_answer_that_could_be_read_as_two_is_refused(content: str) -> None:
    with pytest.raises(Untrusted):
        read(content)


def test_a_fault_is_read_as_a_page_is() -> None:
    fault = envelope.fault(envelope.SoapFault("soap:Server", "closed")).replace(b"clo", b"c<?x?>l<!-- -->o")
    for status in (200, 500):
        with pytest.raises(Faulted, match=r"^Server: closed$"):
            read(fault, status=status)
    with pytest.raises(Unavailable, match="without a fault"):
        read(page(), status=500)


def test_row_20_what_a_later_version_adds_is_passed_over_and_counted() -> None:
    added = "<p:loyalty>9</p:loyalty><x:note xmlns:x='urn:x'><p:amount>9</p:amount></x:note>"
    content = page(behind=added).replace("</p:more>", "</p:more><p:took/>")
    found = read(content)
    assert (found.good, found.bad) == ([CONFIRMATION], [])
    assert found.passed_over == {"loyalty": 1, "note": 1, "took": 1}


def test_row_20_names_that_are_passed_over_are_few() -> None:
    found = read(page(behind="".join(f"<p:n{n}/>" for n in range(1_000))))
    assert len(found.passed_over) == 21
    assert sum(found.passed_over.values()) == 1_000


@pytest.mark.parametrize(
    ("good", "bad", "is_taken"), [(0, 0, True), (1, 1, True), (0, 1, False), (5, 6, False)]
)
def test_row_20_a_page_of_which_most_is_bad_is_not_taken(good: int, bad: int, is_taken: bool) -> None:
    found = Page([CONFIRMATION] * good, _bad(bad), "c6", False)
    if is_taken:
        refuse_mostly_bad(found, "c5")
    else:
        with pytest.raises(Refused, match=f"'c5' {bad} of {good + bad} records .* odd.* the cursor stays"):
            refuse_mostly_bad(found, "c5")


def _bad(count: int) -> list[Bad]:
    return [Bad(index, "odd", b"") for index in range(count)]


def test_the_end_of_the_list_may_come_without_a_cursor_and_the_old_one_stays() -> None:
    assert behind("c5", Page([], [], "", False), 500).next_cursor == "c5"


@pytest.mark.parametrize(
    "page", [Page([], _bad(1), "", False), Page([], [], "", True)], ids=["records", "more"]
)
def test_a_page_without_a_cursor_to_go_on_from_is_refused(page: Page) -> None:
    with pytest.raises(Refused, match="the whole list again"):
        behind("c5", page, 500)


def test_an_empty_list_has_no_cursor_yet() -> None:
    assert behind("", Page([], [], "", False), 500).next_cursor == ""


def test_a_page_of_more_records_than_were_asked_for_is_refused() -> None:
    assert behind("", Page([], _bad(500), "c1", False), 500).next_cursor == "c1"
    with pytest.raises(Refused, match="501 records"):
        behind("", Page([], _bad(501), "c1", False), 500)


def test_a_dead_letter_is_no_larger_than_a_person_reads() -> None:
    record = etree.fromstring(f"<confirmation><payment_id>{'x' * 1_200_000}</payment_id></confirmation>")
    assert _xml(record).startswith(b"<confirmation><payment_id>xxx")
    assert len(_xml(record)) == 10_000
