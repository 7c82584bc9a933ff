"""The scheduler of the service: plans the payments of new sales, and adds to the list those that are due."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta

import psycopg2
from sqlalchemy import make_url

from simulators.payments.journal import Journal
from simulators.payments.payment_outcomes import Entry, Paid, fate

TICK_SECONDS = 1.0
# How far back sales are looked for that were written after later ones; older ones are never confirmed.
OVERLAP = timedelta(hours=1)
# Below the number of variables that one SQLite statement takes.
BATCH = 1_000

_log = logging.getLogger(__name__)


class PaymentScheduler:
    """Runs in a thread; an absent database is waited for."""

    def __init__(
        self,
        url: str,
        journal: Journal,
        seed: int,
        delay: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self._dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._journal = journal
        self._seed = seed
        self._delay = delay
        self._now = now

    def run(self, stop: threading.Event) -> None:
        """Tick until `stop`."""
        while not stop.is_set():
            try:
                self.tick()
            except psycopg2.Error as error:
                _log.warning("no sales can be read: %s", str(error).strip())
            stop.wait(TICK_SECONDS)

    def tick(self) -> int:
        """Plan the payments of new sales, add those that are due; returns how many were added."""
        latest = self._journal.latest_sale_at()
        for batch in self._sales(None if latest is None else latest - OVERLAP):
            unknown = self._journal.unknown([sale.sale_id for sale in batch])
            new = [sale for sale in batch if sale.sale_id in unknown]
            entries: list[Entry] = [entry for sale in new for entry in fate(self._seed, sale, self._delay)]
            self._journal.plan([(sale.sale_id, sale.sold_at) for sale in new], entries)
        return self._journal.add_due(self._now())

    def _sales(self, since: datetime | None) -> Iterator[list[Paid]]:
        with closing(
            psycopg2.connect(self._dsn, application_name="electrored-payments", connect_timeout=5)
        ) as connection:
            connection.set_session(readonly=True)
            with connection, connection.cursor("sales") as cursor:
                cursor.execute(
                    "select sale_id, sold_at, amount, currency from public.sales "
                    "where %s::timestamptz is null or sold_at >= %s order by sold_at, sale_id",
                    (since, since),
                )
                while rows := cursor.fetchmany(BATCH):
                    yield [Paid(*row) for row in rows]
