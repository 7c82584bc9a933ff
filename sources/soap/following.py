"""Whether a page may follow a cursor: what the position passes is not requested again."""

from __future__ import annotations

from dataclasses import replace

from kafka_client.errors import Refused
from sources.soap.errors import MostlyBad
from sources.soap.pages import Page


def behind(cursor: str, page: Page, limit: int) -> Page:
    """The page, if it may follow this cursor. Raises Refused.

    A page without a next cursor has to be empty: then the old one is kept. An empty cursor would begin the list again.
    """
    came = len(page.good) + len(page.bad)
    if came > limit:
        raise Refused(
            f"behind the cursor {cursor!r} the service gives {came} records, asked for {limit} at most"
        )
    if page.next_cursor or not cursor:
        return page
    if came or page.more:
        raise Refused(
            f"behind the cursor {cursor!r} the service gives {came} records and no cursor to go on from: "
            "the next poll would get the whole list again"
        )
    return replace(page, next_cursor=cursor)


def refuse_to_turn_in_circles(page: Page, cursor: str, seen: set[str]) -> None:
    """A cursor that was passed may be repeated only by an empty last page."""
    is_end = page.next_cursor == cursor and not (page.more or page.good or page.bad)
    if page.next_cursor in seen and not is_end:
        raise Refused(
            f"behind the cursor {cursor!r} the service gives the cursor {page.next_cursor!r}, which was passed "
            "before: the same confirmations would come for ever"
        )


def refuse_mostly_bad(page: Page, cursor: str) -> None:
    """Half of a page may be bad, but not the whole of a page of one: it waits until a good record follows."""
    if len(page.bad) <= len(page.good):
        return
    count = len(page.bad) + len(page.good)
    raise MostlyBad(
        f"behind the cursor {cursor!r} {len(page.bad)} of {count} records are no confirmations, the first because of: "
        f"{page.bad[0].reason}. Nothing of this page was taken and the cursor stays before it: has the service changed "
        "its format? The next poll asks for the page again. To take it as it is, bad records as dead letters: "
        "electrored soap poll --set-aside"
    )
