"""One rule for texts: what is a name, what is the same name, and what is refused by its character's name."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import texts

# Where the rule has its corners, close together.
CORNERS = st.text(
    st.sampled_from(
        "aB1 é\u0301\u0308\u200b\u200c\u200d\xad\ufeff\t\n\xa0\u3000\u2028\ufe0f\u0915\u094d\u0937\u180b\u1820\u845b"
        "\U000e0100\u3164\ufdd0\ue000\u1100\u1161\u11a8\u2764\U0001f525\u212b\u0344\u2800\u2003\u2001|\0"
    ),
    max_size=8,
)
ANY = st.text(max_size=20) | CORNERS


@settings(max_examples=1_000, deadline=None)
@given(ANY)
def test_a_text_that_was_read_is_read_the_same_again(text: str) -> None:
    normal, shown = texts.normal(text), texts.description(text)
    assert texts.normal(normal) == normal == unicodedata.normalize("NFC", normal)
    assert texts.description(shown) == shown == texts.normal(shown)
    assert texts.fault(shown) is None
    if texts.fault(normal) is None:
        assert shown == normal == texts.visible(text)


@settings(max_examples=1_000, deadline=None)
@given(st.lists(st.text("aZ1 é\u0301|\t\xa0ж東\u200b") | CORNERS, max_size=5))
def test_texts_that_are_plain_together_stand_as_they_are(found: list[str]) -> None:
    if texts.are_plain("|".join(found).encode()):
        for text in found:
            assert texts.normal(text) == text
            assert texts.fault(text) is None


@pytest.mark.parametrize(
    "text",
    ["Berlin", "Berlin ", " Berlin", "Berlin\xa0", "\u3000Berlin\u2009", "Berlin\t", "\r\nBerlin",
     "Berlin" + " " * 14],
)  # fmt: skip
def test_row_5_and_15_white_space_at_the_ends_means_nothing(text: str) -> None:
    assert texts.name(text) == "Berlin"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Ber\tlin", "holds U+0009 CHARACTER TABULATION at position 4"),
        ("Ber\nlin", "holds U+000A LINE FEED at position 4"),
        ("Ber\u2028lin", "holds U+2028 LINE SEPARATOR at position 4"),
        ("a\0b", "holds U+0000 NULL at position 2"),
        ("\x1bBerlin", "holds U+001B ESCAPE at position 1"),
        ("Ber\x9dlin", "holds U+009D CHARACTER WITHOUT A NAME at position 4"),
        ("Berlin\u200b", "holds U+200B ZERO WIDTH SPACE at position 7"),
        ("Ber\xadlin", "holds U+00AD SOFT HYPHEN at position 4"),
        ("\ufeffBerlin", "holds U+FEFF ZERO WIDTH NO-BREAK SPACE at position 1"),
        ("Ber\u2060lin", "holds U+2060 WORD JOINER at position 4"),
        ("Ber\u200dlin", "holds U+200D ZERO WIDTH JOINER at position 4"),
        ("Ber\u200clin", "holds U+200C ZERO WIDTH NON-JOINER at position 4"),
        ("\u202eBerlin", "holds U+202E RIGHT-TO-LEFT OVERRIDE at position 1"),
        ("Berlin\u200e", "holds U+200E LEFT-TO-RIGHT MARK at position 7"),
        ("Ber\u034flin", "holds U+034F COMBINING GRAPHEME JOINER at position 4"),
        ("Berlin\ufe0f", "holds U+FE0F VARIATION SELECTOR-16 at position 7"),
        ("Berlin\U000e0041", "holds U+E0041 TAG LATIN CAPITAL LETTER A at position 7"),
        ("Berlin\u3164", "holds U+3164 HANGUL FILLER at position 7"),
        ("Berlin\u2800", "holds U+2800 BRAILLE PATTERN BLANK at position 7"),
        ("Berlin\ue000", "holds U+E000 PRIVATE USE CHARACTER at position 7"),
        ("Berlin\uffff", "holds U+FFFF NONCHARACTER at position 7"),
        ("Berlin\ud800", "holds U+D800 SURROGATE at position 7"),
    ],
)
def test_row_15_what_cannot_be_seen_is_refused_by_name(text: str, reason: str) -> None:
    with pytest.raises(texts.Refused) as refused:
        texts.name(text)
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    "text", ["", " ", "\xa0", "\u3000\t", "\u200b", "\u2800\u2800", "\u3164", "\u115f ", "\ufeff", "\u200d"]
)
def test_row_15_what_looks_empty_is_empty(text: str) -> None:
    with pytest.raises(texts.Refused, match=r"^is empty$"):
        texts.name(text)
    assert texts.description(text) == ""


@pytest.mark.parametrize(
    "text",
    ["می\u200cخواهم", "क्\u200dष", "👩\u200d💻", "❤\ufe0f", "葛\U000e0100", "Москва", "東京", "서울",
     "Αθήνα", "تهران", "Saint-Étienne", "O'Fallon"],
)  # fmt: skip
def test_what_scripts_and_emoji_need_is_kept(text: str) -> None:
    assert texts.name(text) == text


def test_the_same_letters_are_one_text_however_they_are_put_together() -> None:
    assert texts.name("Ko\u0308ln") == texts.name("Köln") == "Köln"
    assert texts.name("\u212bngström") == "Ångström"


def test_a_blank_is_a_blank() -> None:
    """No-break blanks and those of another width equal a plain one; their number counts."""
    assert texts.name("New\xa0York") == texts.name("New\u2009York") == "New York"
    assert texts.name("New  York") == "New  York"


def test_a_length_is_that_of_the_normal_form() -> None:
    assert texts.name(" " * 300 + "x" * 256) == "x" * 256
    assert texts.name("o\u0308" * 128) == "ö" * 128
    with pytest.raises(texts.Refused, match="is longer than 256 bytes"):
        texts.name("ö" * 129)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\r\nb", "a b"), ("Fern\xadseher", "Fernseher"), ("TV\u200b ", "TV"), ("a\0b", "a b"),
     ("\ue000x", "\ufffdx"), ("क\u200b\u200dष", "कष")],
)  # fmt: skip
def test_no_sale_is_lost_by_a_description(text: str, shown: str) -> None:
    assert texts.description(text) == shown
