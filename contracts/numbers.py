"""Parsing of numbers: XML Schema's decimal, in files as in payments.

A sign in front, ASCII digits, a decimal sign with digits before or behind it. No exponent, because programs that write
one often round before, and no separators of thousands, because another country reads them as a decimal sign.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from contracts.texts import Refused, called, normal

MOST_DIGITS, MOST_DECIMALS = 14, 4
INTEGER_LIMIT = 1 << 31
_NUMBER = re.compile(r"([+-]?)([0-9]*)\.?([0-9]*)")
# Digits around a point that may be a separator of thousands.
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")
_HINTS = tuple(
    (re.compile(pattern, re.IGNORECASE), hint)
    for pattern, hint in (
        (r"[+-]?(nan|inf|infinity|#.*|na|n/a|null|none|nil)", "it stands for a missing value"),
        (r"[+-]?[0-9.,]+e[+-]?[0-9]+", "it has an exponent, and may have been rounded for it"),
        (r"\(.*\)|[0-9.,]+[+-]", "its sign does not stand in front"),
        (r"[+-]?[0-9]{1,3}([ '_.,][0-9]{3})+([.,][0-9]*)?", "it has separators of thousands"),
    )
)


@dataclass(frozen=True)
class Style:
    """The decimal sign, and whether it is certain: if not, `1.234` may be 1234."""

    sign: str = "."
    is_certain: bool = True

    @property
    def example(self) -> str:
        return f"12{self.sign}50"


POINT = Style()


def amount(text: str, style: Style = POINT) -> int:
    """In ten-thousandths. Raises Refused."""
    negative, whole, decimals = _parts(text, style, f"is no number like {style.example}")
    if len(whole) > MOST_DIGITS:
        raise Refused(f"has more than {MOST_DIGITS} digits before the point")
    if len(decimals) > MOST_DECIMALS:
        raise Refused(f"has more than {MOST_DECIMALS} decimals")
    value = int(whole + decimals.ljust(MOST_DECIMALS, "0"))
    return -value if negative else value


def quantity(text: str, style: Style = POINT) -> int:
    """A whole number of 32 bits, perhaps with decimals that are zeros. Raises Refused."""
    negative, whole, decimals = _parts(text, style, "is no whole number")
    if decimals:
        raise Refused("is no whole number")
    # Digits first: converting a number of thousands of them would be slow.
    value = int(whole) if len(whole) <= MOST_DIGITS else INTEGER_LIMIT
    value = -value if negative else value
    if not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
        raise Refused("is out of the range of a 32-bit integer")
    return value


def _parts(text: str, style: Style, wrong: str) -> tuple[bool, str, str]:
    """Whether it is negative, and the significant digits before (at least `0`) and behind the decimal sign."""
    text = normal(text)
    if not text:
        raise Refused("is empty")
    # With another decimal sign a point is ambiguous: neither a decimal sign nor a separator.
    pointed = text if style.sign == "." else text.replace(".", "?").replace(style.sign, ".")
    match = _NUMBER.fullmatch(pointed)
    if match is None or not (match[2] or match[3]):
        raise Refused(wrong + _hint(text))
    if not style.is_certain and _GROUPED.fullmatch(pointed):
        raise Refused(
            f"may be {text.replace(style.sign, '')} or {text}0: with this separator between the columns "
            f"`{style.sign}` may stand for thousands"
        )
    return match[1] == "-", match[2].lstrip("0") or "0", match[3].rstrip("0")


def _hint(text: str) -> str:
    foreign = next((char for char in text if not char.isascii()), None)
    if foreign is not None:
        return f": it holds {called(foreign)}"
    return next((f": {hint}" for pattern, hint in _HINTS if pattern.fullmatch(text)), "")
