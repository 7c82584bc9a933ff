"""Conditional responses: 304 for a known ETag, and a cache of bodies by version."""

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

# A body of the longest lists is some 100 KB, so this is at most about 25 MB.
KEPT = 256
# RFC 9110: an entity tag may hold commas. Weak and strong ones compare alike here.
_TAG = re.compile(r'(?:W/)?("[^"]*")')


class Answers:
    """Responses over the results database. A body is a function of its question and its version.

    So a cached body of the current version is sent again. The version itself is always read from the database.
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
        """The ranked lists, as a conditional response."""

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
        """The result of `answer` on one snapshot, as a conditional response; raises what it raises."""

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
        """The body with its ETag, or 304. Caches may store it, but have to revalidate it."""
        place = (asked.pipeline, question)
        with self._lock:
            kept, body = self._kept.get(place, (None, b""))
        now = self._results.clock()
        version = self._results.version(asked, now)
        # The tag was given with a body, so there is one; `*` matches if there is one.
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
