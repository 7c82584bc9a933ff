"""Conditional answers: what a reader has is not sent again, and what was computed is not computed again."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Hashable
from datetime import datetime
from threading import Lock

from fastapi import Response
from sqlalchemy import Connection

from api.queries import Question, Ranking, Results
from api.schemas import TopSales, TopSalesmen, shown
from api.versions import Asked, Fresh, Version

# An answer of the longest lists is some 100 KB, so this is at most about 25 MB.
KEPT = 256
# RFC 9110: what is between the quotes may hold commas. Weak and strong ones compare alike here.
_TAG = re.compile(r'(?:W/)?("[^"]*")')


class Answers:
    """Answers over the results database. An answer is a function of its question and its version.

    So a body that was made for the current version is sent again as it is. The version itself is always asked for.
    """

    def __init__(self, results: Results) -> None:
        self._results = results
        self._kept: OrderedDict[tuple[str, Hashable], tuple[Version, bytes]] = OrderedDict()
        self._lock = Lock()

    def respond(
        self,
        ranking: Ranking,
        question: Question,
        if_none_match: str | None,
        shape: type[TopSales] | type[TopSalesmen],
    ) -> Response:
        """The ranked lists, as `conditional` answers."""

        def compute(now: datetime) -> tuple[Version, bytes]:
            answer = self._results.top(ranking, question, now)
            return answer.version, shape.model_validate(shown(answer)).model_dump_json().encode()

        return self._conditional(ranking, question, if_none_match, compute)

    def of_snapshot(
        self,
        asked: Asked,
        if_none_match: str | None,
        answer: Callable[[Connection, Fresh], tuple[Version, bytes]],
    ) -> Response:
        """What `answer` makes of one snapshot, as `conditional` answers; raises what it raises."""

        def compute(now: datetime) -> tuple[Version, bytes]:
            return self._results.snapshot(
                lambda connection: answer(connection, self._results.fresh(connection, asked, now))
            )

        return self._conditional(asked, asked, if_none_match, compute)

    def _conditional(
        self,
        asked: Asked,
        question: Hashable,
        if_none_match: str | None,
        compute: Callable[[datetime], tuple[Version, bytes]],
    ) -> Response:
        """The body with its ETag, or 304. It may be stored, but has to be asked for again each time."""
        place = (asked.pipeline, question)
        with self._lock:
            kept, body = self._kept.get(place, (None, b""))
        now = self._results.clock()
        version = self._results.version(asked, now)
        # Only an answer ever gave this tag, so there is one; a `*` matches if there is.
        if version.etag(place) in _TAG.findall(if_none_match or ""):
            return Response(status_code=304, headers=_headers(version, place))
        if version != kept:
            version, body = compute(now)
            self._keep(place, version, body)
        if (if_none_match or "").strip() == "*":
            return Response(status_code=304, headers=_headers(version, place))
        return Response(body, media_type="application/json", headers=_headers(version, place))

    def _keep(self, place: tuple[str, Hashable], version: Version, body: bytes) -> None:
        with self._lock:
            self._kept[place] = (version, body)
            self._kept.move_to_end(place)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)


def _headers(version: Version, resource: object) -> dict[str, str]:
    return {"ETag": version.etag(resource), "Cache-Control": "no-cache"}
