"""Generations for people and programs: which there are, and how one differs; JSON and CSV."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from api.queries import CITY, DOWNLOADS, ENRICHED, SALESMAN
from streaming.replay import difference
from streaming.replay.difference import Difference
from tests.support.api import ApiResults, problem
from tests.support.results import DAY, BarrierHold, Result, ResultsFixture, city, sale, salesman

GENERATIONS = "/api/v1/generations"
RANGE: dict[str, Any] = {"range_start": DAY, "range_end": DAY + timedelta(days=1)}


def of(pipeline: str, number: int = 2) -> str:
    return f"{GENERATIONS}/{pipeline}/{number}/difference"


def compared(filled: ResultsFixture) -> Difference:
    return difference.take(
        None,  # type: ignore[arg-type]
        filled.engine,
        filled.pipeline,
        2,
        hold=BarrierHold(),
    )


def filled_with(
    empty: ApiResults, before: list[Result], after: list[Result], pipeline: str = CITY, **more: Any
) -> ResultsFixture:
    filled = ResultsFixture(empty.engine, pipeline)
    filled.generation(1, "active", promoted_at=DAY)
    filled.generation(2, "candidate", created_at=DAY + timedelta(hours=1), **more)
    filled.write(1, before)
    filled.write(2, after)
    return filled


def test_generations_say_who_made_them_why_and_what_they_differ_in(
    client: TestClient, empty: ApiResults
) -> None:
    filled = filled_with(
        empty, [city("Ulm", "1")], [city("Ulm", "2"), city("Köln", "1", day=3)], reason="mended", **RANGE
    )
    ResultsFixture(empty.engine, SALESMAN).generation(1, "active")
    seen = compared(filled)
    data = client.get(GENERATIONS).json()["data"]
    assert [(row["pipeline"], row["generation"], row["state"]) for row in data] == [
        (CITY, 2, "candidate"),
        (CITY, 1, "active"),
        (SALESMAN, 1, "active"),
    ]
    day = {"start": "2026-11-22T00:00:00Z", "end": "2026-11-23T00:00:00Z"}
    assert data[0] == {
        "pipeline": CITY,
        "generation": 2,
        "state": "candidate",
        "version": 1,
        "parameters": {"time_zone": "UTC", "grace_seconds": 3600.0, "calendar": "1-day"},
        "range": day,
        "reason": "mended",
        "created_by": "a test",
        "approved_by": None,
        "error": None,
        "created_at": "2026-11-22T01:00:00Z",
        "candidate_at": None,
        "promoted_at": None,
        "standby_at": None,
        "retired_at": None,
        "difference": {
            "base": 1,
            "compared": 2,
            "added": 1,
            "removed": 0,
            "changed": 1,
            "outside": 1,
            "fingerprint": seen.fingerprint,
            "computed_at": seen.computed_at.isoformat().replace("+00:00", "Z"),
        },
    }
    assert data[1]["difference"] is None
    of_one = client.get(GENERATIONS, params={"pipeline": CITY, "limit": 1}).json()["data"]
    assert of_one == data[:1]


def test_a_difference_is_totals_and_the_greatest_changes(client: TestClient, empty: ApiResults) -> None:
    before = [city("Ulm", "90"), city("Bonn", "10"), city("Basel", "1000", currency="CHF")]
    after = [city("Ulm", "91.5"), city("Köln", "20", day=1), city("Basel", "1001", currency="CHF")]
    seen = compared(filled_with(empty, before, after, **RANGE))
    answer = client.get(of(CITY), params={"limit": 2}).json()
    listed = answer.pop("changes")
    assert answer.pop("computed_at")
    assert answer.pop("range")["end"] == "2026-11-23T00:00:00Z"
    assert answer == {
        "pipeline": CITY,
        "generation": 2,
        "state": "candidate",
        "is_current": True,
        "base": 1,
        "compared": 4,
        "added": 1,
        "removed": 1,
        "changed": 2,
        "outside": 1,
        "fingerprint": seen.fingerprint,
        "totals": [
            {"currency": "CHF", "before": "1000.0000", "after": "1001.0000", "change": "1.0000"},
            {"currency": "EUR", "before": "100.0000", "after": "111.5000", "change": "11.5000"},
        ],
    }
    assert [(row["group"]["city"], row["kind"], row["change"], row["share"]) for row in listed] == [
        ("Köln", "added", "20.0000", "0.200000"),
        ("Bonn", "removed", "-10.0000", "-0.100000"),
    ]
    assert listed[0]["before"] is None
    assert listed[0]["after"]["total"] == "20.0000"
    assert listed[0]["window"] == {"start": "2026-11-23T00:00:00Z", "end": "2026-11-24T00:00:00Z"}
    assert (listed[1]["rank_before"], listed[1]["rank_after"]) == (2, None)
    assert client.get(of(CITY), params={"limit": 0}).json()["changes"] == []
    # A promotion that happened since makes it history.
    empty.promote(CITY, 1)
    assert client.get(of(CITY)).json()["is_current"] is False


@pytest.mark.parametrize(
    ("pipeline", "before", "after"),
    [
        (
            CITY,
            [city(f"c{n}", str(n)) for n in range(2500)] + [city("gone", "0.0001")],
            [city(f"c{n}", str(n + 1), late="1") for n in range(2500)],
        ),
        (
            SALESMAN,
            [salesman("s1", "7"), salesman("s2", "5", name='Bo "B", the\nsecond')],
            [salesman("s1", "7", name="Ada L.")],
        ),
        (
            ENRICHED,
            [sale("a", "1"), sale("b", "2")],
            [sale("a", "1", currency="CHF"), sale("c", "-3", payments=[{"payment_id": "p", "amount": "1"}])],
        ),
        (CITY, [city("Ulm", "1")], [city("Ulm", "1")]),
    ],
)
def test_the_csv_has_every_row(
    client: TestClient, empty: ApiResults, pipeline: str, before: list[Result], after: list[Result]
) -> None:
    seen = compared(filled_with(empty, before, after, pipeline))
    answer = client.get(of(pipeline) + ".csv")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{pipeline}.g2.difference.csv"'
    assert len(list(csv.reader(io.StringIO(answer.text)))) == seen.count + 1
    listed = client.get(of(pipeline), params={"limit": 1000}).json()["changes"]
    assert len(listed) == min(seen.count, 1000)


def test_what_a_spreadsheet_would_run_stays_text_and_numbers_stay_numbers(
    client: TestClient, empty: ApiResults
) -> None:
    formula = '=HYPERLINK("http://evil","x")'
    compared(filled_with(empty, [city(formula, "1"), city("@SUM", "2")], [city("-1+2", "3")]))
    rows = list(csv.DictReader(io.StringIO(client.get(of(CITY) + ".csv").text)))
    assert {row["city"] for row in rows} == {f"'{formula}", "'@SUM", "'-1+2"}
    assert sum(Decimal(row["change"]) for row in rows) == 0
    shown = client.get(of(CITY)).json()["changes"]
    assert {row["group"]["city"] for row in shown} == {formula, "@SUM", "-1+2"}


def test_what_is_not_there_is_a_404_with_one_line(client: TestClient, empty: ApiResults) -> None:
    filled = filled_with(empty, [city("Ulm", "1")], [city("Ulm", "2")])
    for ending in ("", ".csv"):
        not_yet = problem(client.get(of(CITY) + ending), 404)["detail"]
        assert not_yet == f"g2 of {CITY} was not compared yet: `electrored diff {CITY} 2` does it"
        assert problem(client.get(of(CITY, 9) + ending), 404)["detail"] == f"{CITY} has no generation 9"
        assert problem(client.get(of("nobody") + ending), 404)["detail"] == "nobody has no generation 2"
    nobody = problem(client.get(GENERATIONS, params={"pipeline": "nobody"}), 404)
    assert nobody["detail"] == "there is no generation of nobody"
    compared(filled)
    with empty.engine.begin() as connection:
        connection.execute(text("UPDATE generations SET state = 'retired' WHERE number = 2"))
    assert "was retired" in problem(client.get(of(CITY) + ".csv"), 404)["detail"]
    gone = client.get(of(CITY)).json()
    assert (gone["state"], gone["changed"], gone["changes"]) == ("retired", 1, [])


@pytest.mark.parametrize(
    "path",
    [
        f"{GENERATIONS}?pipelin={CITY}",
        f"{GENERATIONS}?limit=0",
        f"{GENERATIONS}?pipeline=%00",
        of(CITY, 0),
        of(CITY, 2**31),
        f"{GENERATIONS}/{CITY}/two/difference",
        f"{of(CITY)}?limit=1001",
        f"{GENERATIONS}/%00/1/difference.csv",
    ],
)
def test_a_bad_request_is_a_problem(client: TestClient, empty: ApiResults, path: str) -> None:
    assert problem(client.get(path), 422)["errors"]


def test_downloads_that_nobody_reads_on_hold_up_neither_answers_nor_each_other_for_ever(
    client: TestClient, empty: ApiResults
) -> None:
    compared(filled_with(empty, [city(f"c{n}", "1") for n in range(3000)], []))
    results = client.app.state.results  # type: ignore[attr-defined]
    slow = [
        results.download(lambda connection: connection.exec_driver_sql("SELECT '1'").scalars())
        for _ in range(DOWNLOADS)
    ]
    assert [next(pieces) for pieces in slow] == ["1"] * DOWNLOADS
    refused = client.get(of(CITY) + ".csv")
    assert "downloads are under way" in problem(refused, 503)["detail"]
    assert refused.headers["retry-after"] == "2"
    assert client.get(of(CITY)).status_code == 200
    slow[0].close()
    assert client.get(of(CITY) + ".csv").text.count("\n") == 3001
    # The first one's connection was given back, by the download that ended too.
    assert client.get(of(CITY) + ".csv").status_code == 200
    for pieces in slow:
        pieces.close()


def test_row_37_the_head_of_a_download_computes_nothing(client: TestClient, empty: ApiResults) -> None:
    """It takes none of the few connections that downloads have, so it is answered while all of them are busy."""
    filled = filled_with(empty, [city("Ulm", "1")], [city("Ulm", "2")])
    compared(filled)
    whole = client.get(of(CITY) + ".csv")
    results = client.app.state.results  # type: ignore[attr-defined]
    slow = [
        results.download(lambda connection: connection.exec_driver_sql("SELECT '1'").scalars())
        for _ in range(DOWNLOADS)
    ]
    assert [next(pieces) for pieces in slow] == ["1"] * DOWNLOADS
    assert client.get(of(CITY) + ".csv").status_code == 503
    head = client.head(of(CITY) + ".csv")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-disposition", "cache-control", "content-length"):
        assert head.headers.get(name) == whole.headers.get(name)
    assert client.head(of(CITY, 9) + ".csv").status_code == 404
    for pieces in slow:
        pieces.close()
