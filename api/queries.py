"""Queries of the results database: freshness, and the two rankings, each on one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row, create_engine
from sqlalchemy.event import listen
from sqlalchemy.exc import DBAPIError

from api.versions import Asked, Fresh, NoActiveGeneration, Version
from contracts.calendar import Calendar, Window
from contracts.topics import ENRICHED_SALES, TOP_SALES_BY_CITY, TOP_SALESMAN_BY_COUNTRY
from contracts.zones import ZoneRules

# A pipeline is named after the public topic that it feeds.
CITY = TOP_SALES_BY_CITY.name
SALESMAN = TOP_SALESMAN_BY_COUNTRY.name
ENRICHED = ENRICHED_SALES.name

# Two cores serve 200 requests a second with three connections busy; the rest is for slow requests.
CONNECTIONS = 8
# Limit of a request's waits: to connect, for a pooled connection, for a statement.
PATIENCE_SECONDS = 2
_OPTIONS = "-c timezone=UTC -c default_transaction_read_only=on -c statement_timeout={}"
# Downloads have connections of their own: a slow client holds one, and must not delay other requests.
DOWNLOADS = 2
# The first piece of a download waits until a million rows are sorted.
DOWNLOAD_SECONDS = 30
# A stalled download is ended: its snapshot keeps VACUUM from removing rows.
STALLED_SECONDS = 60

# The first query of every request: planning it would cost more than running it.
_PREPARE = (
    "PREPARE freshness (text) AS SELECT f.generation, f.promotion_number, f.apply_number, f.time_zone, f.calendar, "
    "f.grace, f.watermark, g.created_at FROM active_freshness AS f "
    "JOIN generations AS g ON g.pipeline = f.pipeline AND g.number = f.generation WHERE f.pipeline = $1"
)
_FRESHNESS = "EXECUTE freshness (%(pipeline)s)"
_RULES = "SELECT zone_rules FROM generations WHERE pipeline = %(pipeline)s AND number = %(number)s"
_FILTERED = (
    "generation = %(generation)s "
    "AND (CAST(%(country)s AS text) IS NULL OR country = %(country)s) "
    "AND (CAST(%(currency)s AS text) IS NULL OR currency = %(currency)s)"
)
# By both bounds: the empty window of a day that a zone left out begins where the next one does.
_SELECTED = f"{_FILTERED} AND window_start = %(window_start)s AND window_end = %(window_end)s"

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """A request for rankings: a day's window (None: the latest that has begun and has data), filters, limit."""

    day: date | None
    country: str | None
    currency: str | None
    limit: int


@dataclass(frozen=True)
class Answer:
    """Rows with their window and freshness. `window` is None while no window that has begun has data."""

    version: Version
    generation: int
    time_zone: str
    window: Window | None
    rows: list[Row[Any]]
    late: list[Row[Any]]
    negative_groups: int
    watermark: datetime | None
    is_final: bool
    updated_at: datetime | None
    restated_at: datetime | None
    # In windows that have not begun.
    future_sales: int


class Ranking:
    """The queries of one ranking: its table, and the columns that its lists are ranked within."""

    def __init__(self, pipeline: str, table: str, listed_by: str, ids: str, shown: str) -> None:
        self.pipeline = pipeline
        self.latest = (
            f"SELECT window_start, window_end FROM {table} "
            "WHERE generation = %(generation)s AND sales_count > 0 AND window_start <= %(now)s "
            "ORDER BY window_start DESC LIMIT 1"
        )
        self.future = (
            f"SELECT CAST(coalesce(sum(sales_count), 0) AS bigint) FROM {table} "
            f"WHERE {_FILTERED} AND window_start > %(now)s AND sales_count > 0"
        )
        self.top = (
            f"SELECT * FROM (SELECT row_number() OVER (PARTITION BY {listed_by} ORDER BY total DESC, {ids}) "
            f"AS rank, {shown}, currency, CAST(total AS text) AS total, sales_count "
            # Negative groups are not ranked, but counted in `negative_groups`.
            f"FROM {table} WHERE {_SELECTED} AND sales_count > 0) AS ranked "
            f"WHERE rank <= %(limit)s ORDER BY {listed_by}, rank"
        )
        # Groups whose count is zero again are hidden above, but their late sales count.
        self.summary = (
            "SELECT currency, CAST(sum(late_count) AS bigint) AS late_count, "
            "CAST(sum(late_amount) AS text) AS late_amount, max(restated_at) AS restated_at, "
            "count(*) FILTER (WHERE is_negative) AS negative_groups, "
            f"max(updated_at) AS updated_at FROM {table} WHERE {_SELECTED} GROUP BY currency ORDER BY currency"
        )


TOP_SALES = Ranking(CITY, "city_totals", "currency", "country, city", "city, country")
TOP_SALESMEN = Ranking(
    SALESMAN, "salesman_totals", "country, currency", "salesman_id", "country, salesman_id, salesman_name"
)


class Results:
    """The results database, read only: a version is one statement, an answer one REPEATABLE READ snapshot.

    `clock` decides which windows have begun.
    """

    def __init__(self, url: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.clock = clock
        self._calendars: dict[tuple[str, int, datetime], Calendar] = {}
        self._engine: Engine = create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=PATIENCE_SECONDS,
            connect_args=_connect_args(_OPTIONS.format(PATIENCE_SECONDS * 1000)),
        )
        listen(self._engine, "connect", _prepare)
        stalled = f" -c idle_in_transaction_session_timeout={STALLED_SECONDS * 1000}"
        self._downloads: Engine = create_engine(
            url,
            isolation_level="REPEATABLE READ",
            pool_size=DOWNLOADS,
            max_overflow=0,
            # With all in use a request fails at once, instead of holding a thread.
            pool_timeout=0,
            pool_pre_ping=True,
            connect_args=_connect_args(_OPTIONS.format(DOWNLOAD_SECONDS * 1000) + stalled),
        )

    def warm(self) -> None:
        """Open all connections, so that no request has to. Raises OperationalError when the database is down."""
        connections = [self._engine.connect() for _ in range(CONNECTIONS)]
        for connection in connections:
            connection.close()

    def close(self) -> None:
        self._engine.dispose()
        self._downloads.dispose()

    def missing(self) -> list[str]:
        """Pipelines without an active generation, whose requests fail."""

        def ask(connection: Connection) -> set[str]:
            return set(connection.exec_driver_sql("SELECT pipeline FROM active_freshness").scalars())

        return sorted({CITY, SALESMAN, ENRICHED} - self._once_more(ask))

    def version(self, asked: Asked, now: datetime) -> Version:
        """The version that an answer would have now. Raises NoActiveGeneration."""
        return self._once_more(lambda connection: self.fresh(connection, asked, now)).version

    def top(self, ranking: Ranking, question: Question, now: datetime) -> Answer:
        """The answer, all of it from one snapshot. Raises NoActiveGeneration."""

        return self.snapshot(
            lambda connection: _answer(connection, ranking, question, self.fresh(connection, ranking, now))
        )

    def fresh(self, connection: Connection, asked: Asked, now: datetime) -> Fresh:
        """The active generation and how far it is applied. Raises NoActiveGeneration."""
        row = connection.exec_driver_sql(_FRESHNESS, {"pipeline": asked.pipeline}).one_or_none()
        if row is None:
            raise NoActiveGeneration(asked.pipeline)
        return Fresh(row, self._calendar(connection, asked.pipeline, row), now)

    def _calendar(self, connection: Connection, pipeline: str, row: Row[Any]) -> Calendar:
        """The calendar with the generation's zone rules. They never change, so they are read once."""
        # A number may be reused in a database that was restored to an earlier time.
        key = (pipeline, row.generation, row.created_at)
        calendar = self._calendars.get(key)
        if calendar is None:
            named = {"pipeline": pipeline, "number": row.generation}
            rules = connection.exec_driver_sql(_RULES, named).scalar()
            zone = None if rules is None else ZoneRules.from_json(rules)
            calendar = Calendar(row.calendar, row.time_zone, zone)
            # Not cached without rules: a worker will store them when it starts with this generation.
            if zone is not None:
                self._calendars[key] = calendar
        return calendar

    def snapshot(self, ask: Callable[[Connection], T]) -> T:
        """The result of `ask` on one REPEATABLE READ snapshot; retried once if the connection is dead."""
        return self._once_more(
            lambda connection: ask(connection.execution_options(isolation_level="REPEATABLE READ"))
        )

    def download(self, read: Callable[[Connection], Iterator[str]]) -> Iterator[str]:
        """The pieces that `read` yields on one snapshot. Raises sqlalchemy's TimeoutError with too many downloads."""
        with self._downloads.connect() as connection:
            yield from read(connection)

    def _once_more(self, ask: Callable[[Connection], T]) -> T:
        """Retry once: a pooled connection may be dead after a restart of the database."""
        try:
            with self._engine.connect() as connection:
                return ask(connection)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        with self._engine.connect() as connection:
            return ask(connection)


def _connect_args(options: str) -> dict[str, Any]:
    return {
        "connect_timeout": PATIENCE_SECONDS,
        "tcp_user_timeout": PATIENCE_SECONDS * 1000,
        "application_name": "electrored-api",
        "options": options,
    }


def _prepare(connection: Any, _: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_PREPARE)
    connection.commit()


def _answer(connection: Connection, ranking: Ranking, question: Question, fresh: Fresh) -> Answer:
    window = _window(connection, ranking, question.day, fresh)
    filters = {
        "generation": fresh.generation,
        "country": question.country,
        "currency": question.currency,
    }
    rows: list[Row[Any]] = []
    summary: list[Row[Any]] = []
    if window is not None:
        selected = filters | {"window_start": window.start, "window_end": window.end}
        rows = list(connection.exec_driver_sql(ranking.top, selected | {"limit": question.limit}))
        summary = list(connection.exec_driver_sql(ranking.summary, selected))
    future = connection.exec_driver_sql(ranking.future, filters | {"now": fresh.now}).scalar_one()
    return Answer(
        version=fresh.version,
        generation=fresh.generation,
        time_zone=fresh.calendar.time_zone,
        window=window,
        rows=rows,
        late=[row for row in summary if row.late_count],
        negative_groups=sum(row.negative_groups for row in summary),
        watermark=fresh.watermark,
        is_final=_is_final(fresh.watermark, window, fresh.grace),
        updated_at=max((row.updated_at for row in summary), default=None),
        restated_at=max((row.restated_at for row in summary if row.restated_at), default=None),
        future_sales=int(future),
    )


def _window(connection: Connection, ranking: Ranking, day: date | None, fresh: Fresh) -> Window | None:
    if day is not None:
        return fresh.calendar.window_of(day)
    asked = {"generation": fresh.generation, "now": fresh.now}
    latest = connection.exec_driver_sql(ranking.latest, asked).one_or_none()
    return None if latest is None else Window(latest.window_start, latest.window_end)


def _is_final(watermark: datetime | None, window: Window | None, grace: timedelta) -> bool:
    # A grace may be longer than there are years behind the window's end.
    return watermark is not None and window is not None and watermark - window.end >= grace
