"""What a pipeline asks of an event: its checks, and its sign. Data only; `columns` and `rows` interpret it.

The type of a column is in its class, so mypy refuses what makes no sense, such as an amount below a text:

    Text("currency").matches("[A-Z]{3}")
    Text("city").length <= 256
    Amount("amount").absolute < Decimal(10**14)

The operations are those that pipelines use. Each has one meaning in both interpreters: an operation on null is null
(unknown), and a condition holds only if it is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Operator = Literal["<", "<=", ">"]
# Decimals of the logs have four digits behind the point; exact arithmetic is in these.
SCALE = 4


@dataclass(frozen=True)
class IsIn:
    """The text is one of these."""

    column: Text
    values: tuple[str, ...]


@dataclass(frozen=True)
class IsKnown:
    """The text is not null."""

    column: Text


@dataclass(frozen=True)
class Matches:
    """The whole text is of the pattern, a line feed at its end included.

    `pattern` consists of ASCII characters, classes of them and counts, which Python's and Rust's syntax read alike.
    """

    column: Text
    pattern: str


@dataclass(frozen=True)
class Lacks:
    """The text does not contain `part`."""

    column: Text
    part: str


@dataclass(frozen=True)
class Compare:
    """A number beside a literal."""

    left: Length | Absolute
    operator: Operator
    right: int


@dataclass(frozen=True)
class Between:
    """`least` <= the integer < `behind`."""

    column: Whole
    least: int
    behind: int


@dataclass(frozen=True)
class Text:
    """A column of texts."""

    name: str

    def is_in(self, *values: str) -> Condition:
        return IsIn(self, values)

    def matches(self, pattern: str) -> Condition:
        return Matches(self, pattern)

    def lacks(self, part: str) -> Condition:
        return Lacks(self, part)

    @property
    def is_known(self) -> Condition:
        return IsKnown(self)

    @property
    def length(self) -> Length:
        """In bytes of UTF-8."""
        return Length(self)


@dataclass(frozen=True)
class Length:
    """How many bytes of UTF-8 a text has."""

    column: Text

    def __gt__(self, literal: int) -> Condition:
        return Compare(self, ">", literal)

    def __le__(self, literal: int) -> Condition:
        return Compare(self, "<=", literal)


@dataclass(frozen=True)
class Whole:
    """A column of 64-bit integers; a time is one, in microseconds since the Unix epoch."""

    name: str

    def is_between(self, least: int, behind: int) -> Condition:
        """Half-open, as windows are."""
        return Between(self, least, behind)


@dataclass(frozen=True)
class Amount:
    """A column of decimals."""

    name: str

    @property
    def absolute(self) -> Absolute:
        return Absolute(self)


@dataclass(frozen=True)
class Absolute:
    """An amount without its sign."""

    column: Amount

    def __lt__(self, literal: Decimal) -> Condition:
        return Compare(self, "<", ten_thousandths(literal))


@dataclass(frozen=True)
class Choose:
    """`then` where the condition holds, elsewhere `otherwise`."""

    condition: Condition
    then: int
    otherwise: int


Condition = IsIn | IsKnown | Matches | Lacks | Compare | Between
# The sign of an event: the same for all, or by a condition.
Sign = int | Choose


def ten_thousandths(literal: Decimal) -> int:
    """The literal as the integer that an amount is. Raises ValueError for one with more than four decimals."""
    sign, digits, exponent = literal.as_tuple()
    # By its digits: arithmetic on Decimal rounds to the digits of its context.
    if not isinstance(exponent, int) or exponent < -SCALE:
        raise ValueError(f"{literal} has more than {SCALE} decimals")
    number: int = int("".join(map(str, digits))) * 10 ** (exponent + SCALE)
    return -number if sign else number


def reads(expression: Condition | Sign) -> tuple[str, ...]:
    """The columns that an expression needs."""
    match expression:
        case int():
            return ()
        case Choose(condition, _, _):
            return reads(condition)
        case Compare(Length(column) | Absolute(column), _, _):
            return (column.name,)
        case _:
            return (expression.column.name,)
