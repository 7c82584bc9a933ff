"""An answer is made once for each version, sent again while it holds, and never sent for another version."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api import conditional as module
from api.conditional import Answers
from api.queries import TOP_SALES, TOP_SALESMEN, Answer, Question, Ranking, Results
from api.schemas import TopSales
from api.versions import Version
from contracts.calendar import Window

QUESTION = Question(None, None, None, 10)
BEGUN = datetime(2026, 11, 21, 23, tzinfo=UTC)
TAG = Version(1, 1, BEGUN).etag((TOP_SALES.pipeline, QUESTION))


class Database:
    """Stands for `Results`: has the version, and counts its computations."""

    def __init__(self) -> None:
        self.now = Version(1, 1, BEGUN)
        self.computed = 0

    def clock(self) -> datetime:
        return BEGUN + timedelta(hours=1)

    def version(self, ranking: Ranking, now: datetime) -> Version:
        return self.now

    def top(self, ranking: Ranking, question: Question, now: datetime) -> Answer:
        self.computed += 1
        row: Any = SimpleNamespace(
            rank=1, city="Köln", country="DE", currency="EUR", total="1.5000", sales_count=self.computed
        )
        late: Any = SimpleNamespace(currency="EUR", late_count=2, late_amount="-0.0001")
        return Answer(
            version=self.now,
            generation=3,
            time_zone="Europe/Berlin",
            window=Window(datetime(2026, 11, 21, 23, tzinfo=UTC), datetime(2026, 11, 22, 23, tzinfo=UTC)),
            rows=[row],
            late=[late],
            negative_groups=0,
            watermark=datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC),
            is_final=False,
            updated_at=None,
            restated_at=None,
            future_sales=7,
        )


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def answers(database: Database) -> Answers:
    return Answers(cast(Results, database))


def test_the_shape_is_the_documented_one(answers: Answers) -> None:
    response = answers.respond(TOP_SALES, QUESTION, None, TopSales)
    assert json.loads(bytes(response.body)) == {
        "window": {"start": "2026-11-21T23:00:00Z", "end": "2026-11-22T23:00:00Z", "time_zone": "Europe/Berlin"},
        "data": [
            {"rank": 1, "city": "Köln", "country": "DE", "currency": "EUR", "total": "1.5000", "sales_count": 1}
        ],
        "freshness": {
            "watermark": "2026-11-22T12:00:00.123456Z", "updated_at": None, "is_final": False, "restated_at": None,
            "future_sales": 7,
        },
        "late": [{"currency": "EUR", "count": 2, "amount": "-0.0001"}],
        "negative_groups": 0,
        "generation": 3,
    }  # fmt: skip


def test_computed_once_for_each_version_and_question(answers: Answers, database: Database) -> None:
    first = answers.respond(TOP_SALES, QUESTION, None, TopSales)
    assert answers.respond(TOP_SALES, QUESTION, None, TopSales).body == first.body
    assert database.computed == 1
    answers.respond(TOP_SALES, Question(None, "DE", None, 10), None, TopSales)
    answers.respond(TOP_SALESMEN, QUESTION, None, TopSales)
    assert database.computed == 3
    database.now = Version(1, 2, BEGUN)
    newer = answers.respond(TOP_SALES, QUESTION, None, TopSales)
    assert newer.headers["etag"].startswith('"1-2-')
    assert database.computed == 4
    assert newer.body != first.body


@pytest.mark.parametrize("tags", [TAG, f"W/{TAG}", f' "0-9" , {TAG} ', f'"a, b",W/"c",{TAG}'])
def test_what_the_reader_has_is_not_sent(answers: Answers, database: Database, tags: str) -> None:
    response = answers.respond(TOP_SALES, QUESTION, tags, TopSales)
    assert (response.status_code, response.body, response.headers["etag"]) == (304, b"", TAG)
    assert database.computed == 0


def test_row_35_any_version_matches_if_there_is_an_answer(answers: Answers, database: Database) -> None:
    for computed in (1, 1):
        response = answers.respond(TOP_SALES, QUESTION, " * ", TopSales)
        assert (response.status_code, response.body, response.headers["etag"]) == (304, b"", TAG)
        assert database.computed == computed


def test_row_35_a_tag_belongs_to_one_resource(answers: Answers) -> None:
    others = [(TOP_SALES, Question(None, "DE", None, 10)), (TOP_SALESMEN, QUESTION)]
    for ranking, question in others:
        other = answers.respond(ranking, question, TAG, TopSales)
        assert (other.status_code, other.headers["etag"] != TAG) == (200, True)


def test_row_29_what_was_the_newest_window_is_not_kept_when_another_begins(
    answers: Answers, database: Database
) -> None:
    """No sale came, so promotion and apply number are as before; the answer without a day is another one."""
    answers.respond(TOP_SALES, QUESTION, None, TopSales)
    database.now = Version(1, 1, BEGUN + timedelta(days=1))
    response = answers.respond(TOP_SALES, QUESTION, TAG, TopSales)
    assert (response.status_code, database.computed) == (200, 2)


@pytest.mark.parametrize(
    "tags", ["", TAG[:-2] + '"', TAG.strip('"'), '"2-1"', ",", f"x{TAG[:-1]}", '"*"', f"*, {TAG[1:]}"]
)
def test_another_tag_is_no_match(answers: Answers, tags: str) -> None:
    assert answers.respond(TOP_SALES, QUESTION, tags, TopSales).status_code == 200


def test_kept_answers_are_bounded(
    answers: Answers, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    for limit in (1, 2, 3, 1):
        answers.respond(TOP_SALES, Question(None, None, None, limit), None, TopSales)
    assert database.computed == 4
    answers.respond(TOP_SALES, Question(None, None, None, 3), None, TopSales)
    assert database.computed == 4
