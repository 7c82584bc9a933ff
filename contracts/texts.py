r"""Normalisation of texts: one rule for all sources, the pipelines' checks and the API's parameters.

A text is in Unicode's form C, without white space at its ends; every blank within is U+0020, and what only looks
empty is empty. A *name* (an id, a city, a country) decides what a fact belongs to: it is refused if it holds a
character that cannot be seen. A *description* (a salesman's name, a product) decides nothing, so no sale is lost by
it: such characters are taken out.

The characters are listed here, by ranges that Unicode will not change, and not asked of Python's `unicodedata`: a
replay by another Python gives the same answer. Every function is idempotent.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

# Limits of keys of the results database, where an index entry ends at 2,704 bytes.
MOST_NAME_BYTES = 256
MOST_SALE_ID_BYTES = 1_000
# Size of the cache of parsed texts, and the longest that it holds.
MOST_KEPT, MOST_KEPT_LENGTH = 1 << 16, 256

# Unicode's White_Space, of which those that are no control characters look like a blank.
_BLANKS = r"\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
_WHITE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
# Default_Ignorable_Code_Point without joiners and variation selectors; format controls that stand between letters;
# the blank Braille pattern.
_INVISIBLE = (
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufeff"
    r"\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
# Private use, surrogates and noncharacters: without a defined glyph.
_FOREIGN = r"\ud800-\uf8ff\ufdd0-\ufdef\U000f0000-\U0010ffff" + "".join(
    rf"\U{plane:04x}fffe\U{plane:04x}ffff" for plane in range(15)
)
# Scripts in which a joiner is part of the spelling (Arabic to Myanmar, Khmer, Mongolian …), and emoji.
_JOINED = (
    r"\u0600-\u109f\u1700-\u1cff\ua800-\uabff\ufb50-\ufdcf\ufdf0-\ufdff\ufe70-\ufefc\ufe0f\u2190-\u27ff\u2900-\u2bff"
    r"\U00010a00-\U00011fff\U0001e900-\U0001e95f\U0001f000-\U0001faff"
)
_IDEOGRAPHS = r"\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
_SYMBOLS = r"\xa9\xae\u203c\u2049\u2100-\u27ff\u2900-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
# Joiners and variation selectors in places without effect.
_ASTRAY = (
    rf"(?<![{_JOINED}])[\u200c\u200d]|[\u200c\u200d](?![{_JOINED}])"
    rf"|(?<![{_IDEOGRAPHS}{_SYMBOLS}])[\ufe00-\ufe0f]|(?<![{_IDEOGRAPHS}])[\U000e0100-\U000e01ef]"
    r"|(?<![\u1820-\u18aa])[\u180b-\u180d\u180f]"
)
_BLANK = re.compile(rf"[{_BLANKS}]")
_CONTROLS = re.compile(rf"[{_CONTROL}]+")
_UNSEEN = re.compile(rf"[{_INVISIBLE}]|{_ASTRAY}")
_NO_CHARACTER = re.compile(rf"[{_FOREIGN}]")
_REFUSED = re.compile(rf"[{_CONTROL}{_INVISIBLE}{_FOREIGN}]|{_ASTRAY}")
_LOOKS_EMPTY = re.compile(
    rf"[ {_BLANKS}{_CONTROL}{_INVISIBLE}\u200c\u200d\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]*"
)
_CURRENCY = re.compile("[A-Z]{3}")
# Texts that are normal as they are, nearly all: ASCII and precomposed letters, with blanks between them at most.
# Nothing here combines with a neighbour. In syntax that Rust's regex supports too.
_LETTERS = (
    r"!-~\xc0-\u024f\u0391-\u03a1\u03a3-\u03a9\u03b1-\u03c9\u0400-\u0482\u048a-\u052f"
    r"\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3"
)
PLAIN = f"^[{_LETTERS}](?:[ {_LETTERS}]*[{_LETTERS}])?$"
_is_plain = re.compile(PLAIN[1:-1]).fullmatch
_is_odd = re.compile(f"[^ {_LETTERS}]").search
_PRINTABLE = bytes(range(0x20, 0x7F))
# Controls have no name in `unicodedata`.
_CONTROL_NAMES = {
    0x00: "NULL", 0x09: "CHARACTER TABULATION", 0x0A: "LINE FEED", 0x0B: "LINE TABULATION", 0x0C: "FORM FEED",
    0x0D: "CARRIAGE RETURN", 0x1B: "ESCAPE", 0x7F: "DELETE", 0x85: "NEXT LINE",
}  # fmt: skip


T = TypeVar("T", str, bytes)
R = TypeVar("R")


class Refused(ValueError):
    """A text that is not valid for its column; the message is the reason, without the column."""


def normal(text: str) -> str:
    """The text in form C, every blank as U+0020, trimmed; empty if it only looks empty."""
    if _is_plain(text):
        return text
    text = _BLANK.sub(" ", unicodedata.normalize("NFC", text)).strip(_WHITE)
    return "" if _LOOKS_EMPTY.fullmatch(text) else text


def fault(text: str) -> str | None:
    """The first character of a normal text that a name must not hold, and its position; None without any."""
    match = _REFUSED.search(text)
    if match is None:
        return None
    return f"holds {called(match[0])} at position {match.start() + 1}"


def name(text: str, most: int = MOST_NAME_BYTES) -> str:
    """The text as a name. Raises Refused for one that is empty, too long, or holds what cannot be seen."""
    text = visible(text)
    if not text:
        raise Refused("is empty")
    if len(text.encode()) > most:
        raise Refused(f"is longer than {most} bytes")
    return text


def currency(text: str) -> str:
    """A currency's code. Raises Refused."""
    text = normal(text)
    if not _CURRENCY.fullmatch(text):
        raise Refused("is not three capital letters")
    return text


def visible(text: str) -> str:
    """The text as a name that may be empty or too long, which the pipelines check, as in any event.

    Raises Refused for what cannot be seen.
    """
    text = normal(text)
    if (reason := fault(text)) is not None:
        raise Refused(reason)
    return text


def description(text: str) -> str:
    """The text as a description: what a name must not hold becomes a blank, nothing, or U+FFFD."""
    if _is_plain(text):
        return text
    text = normal(text)
    if _REFUSED.search(text) is None:
        return text
    text = _NO_CHARACTER.sub("\ufffd", _CONTROLS.sub(" ", text))
    # Removing characters may bring two together that combine.
    while (cleaned := normal(_UNSEEN.sub("", text))) != text:
        text = cleaned
    return text


def are_plain(joined: bytes) -> bool:
    """Whether many texts, in UTF-8 and joined by `|`, stand as they are; in doubt not.

    A few operations in all, not one a text.
    """
    # Searching for one byte is many times as fast as for two.
    if b" " in joined and (
        b"| " in joined or b" |" in joined or joined.startswith(b" ") or joined.endswith(b" ")
    ):
        return False
    rest = joined.translate(None, _PRINTABLE)
    return not rest or not _is_odd(rest.decode())


def kept(read: Callable[[T], R]) -> Callable[[T], R]:
    """The parser of texts (or of their UTF-8) with an LRU cache: most texts recur."""
    cached = lru_cache(MOST_KEPT)(read)
    return lambda text: cached(text) if len(text) <= MOST_KEPT_LENGTH else read(text)


def called(char: str) -> str:
    """A character by its code point and name."""
    code = ord(char)
    if 0xD800 <= code <= 0xDFFF:
        shown = "SURROGATE"
    elif code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF:
        shown = "NONCHARACTER"
    elif 0xE000 <= code <= 0xF8FF or code >= 0xF0000:
        shown = "PRIVATE USE CHARACTER"
    else:
        shown = _CONTROL_NAMES.get(code, "") or unicodedata.name(char, "CHARACTER WITHOUT A NAME")
    return f"U+{code:04X} {shown}"
