"""Conditional answers: what a reader has is not sent again, and what was computed is not computed again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

from fastapi import Response

from api.queries import Asked, Question, Ranking, Results, Version
from api.schemas import TopSales, TopSalesmen, shown

# An answer of the longest lists is some 100 KB, so this is at most about 25 MB.
KEPT = 256


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

        def compute() -> tuple[Version, bytes]:
            answer = self._results.top(ranking, question)
            return answer.version, shape.model_validate(shown(answer)).model_dump_json().encode()

        return self.conditional(ranking, question, if_none_match, compute)

    def conditional(
        self,
        asked: Asked,
        question: Hashable,
        if_none_match: str | None,
        compute: Callable[[], tuple[Version, bytes]],
    ) -> Response:
        """The body with its ETag, or 304. It may be stored, but has to be asked for again each time."""
        tags = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
        place = (asked.pipeline, question)
        with self._lock:
            kept, body = self._kept.get(place, (None, b""))
        version = self._results.version(asked)
        if "*" in tags or version.etag in tags:
            return Response(status_code=304, headers=_headers(version))
        if version != kept:
            version, body = compute()
            self._keep(place, version, body)
        return Response(body, media_type="application/json", headers=_headers(version))

    def _keep(self, place: tuple[str, Hashable], version: Version, body: bytes) -> None:
        with self._lock:
            self._kept[place] = (version, body)
            self._kept.move_to_end(place)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)


def _headers(version: Version) -> dict[str, str]:
    return {"ETag": version.etag, "Cache-Control": "no-cache"}
