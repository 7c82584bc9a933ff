"""Strict parsing of a request's path and query: one rule for all parameters, so that none is ambiguous.

A parameter comes once, is one that the route has, and is percent-encoded UTF-8; a number is its plain digits, a day a
date like 2026-11-22. Anything else is refused with 422.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import date
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from contracts.calendar import FIRST_DAY, LAST_DAY

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# The days of 1900 to 2199, the 29ths of February of those years that have one.
_YEAR = "(19|20|21)[0-9]{2}"
_LEAP = "(19(0[48]|[2468][048]|[13579][26])|20([02468][048]|[13579][26])|21(0[48]|[2468][048]|[13579][26]))"
_DAY = (
    f"^({_YEAR}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|{_YEAR}-(0[13-9]|1[0-2])-(29|30)|"
    f"{_YEAR}-(0[13578]|1[02])-31|{_LEAP}-02-29)$"
)
_DIGITS = re.compile(r"0|[1-9][0-9]{0,9}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


async def plain_address(request: Request) -> None:
    """Refuse an ambiguous path or query. Raises RequestValidationError."""
    errors = [
        _error("path", "path", reason)
        for reason in [_unreadable(request.scope.get("raw_path") or b"")]
        if reason is not None
    ]
    names: Counter[str] = Counter()
    for pair in request.scope["query_string"].split(b"&"):
        if not pair:
            continue
        name = unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" ")).decode(errors="replace")
        names[name] += 1
        if (reason := _unreadable(pair)) is not None:
            errors.append(_error("query", name, reason))
    errors += [_error("query", name, "is given more than once") for name, times in names.items() if times > 1]
    route = request.scope.get("route")
    # Routes with parameters refuse unknown ones by their models.
    if isinstance(route, APIRoute) and not route.dependant.query_params:
        errors += [_error("query", name, "there is no such parameter") for name in names]
    if errors:
        raise RequestValidationError(errors)


def _unreadable(part: bytes) -> str | None:
    if _BAD_ESCAPE.search(part):
        return "a % is followed by two hexadecimal digits"
    if not part.isascii():
        return "what is no ASCII has to be percent-encoded"
    try:
        unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        return "is not UTF-8"
    return None


def _error(place: str, name: str, reason: str) -> dict[str, Any]:
    return {"type": "value_error", "loc": (place, name), "msg": reason}


def _digits(value: Any) -> Any:
    # `int` would accept 1_000, +1, full-width digits and surrounding blanks too.
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise ValueError("must be a whole number in plain digits, like 20")
    return value


def _iso_day(value: Any) -> Any:
    # Pydantic would accept a number or a moment as a date too.
    if isinstance(value, str) and not _DATE.fullmatch(value):
        raise ValueError("must be a date like 2026-11-22")
    return value


def _in_calendar(day: date) -> date:
    if not FIRST_DAY <= day < LAST_DAY:
        raise ValueError(f"must not be before {FIRST_DAY}, and be before {LAST_DAY}")
    return day


PLAIN_DIGITS = BeforeValidator(_digits)
Whole = Annotated[int, PLAIN_DIGITS]
Day = Annotated[
    date,
    BeforeValidator(_iso_day),
    AfterValidator(_in_calendar),
    WithJsonSchema({"type": "string", "format": "date", "pattern": _DAY}),
]
