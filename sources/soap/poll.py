"""One poll: everything that the payment service confirmed since the last one → payment-confirmations.

Each page's confirmations, dead letters and new cursor are one Kafka transaction, so the next poll resumes a killed
one behind the last page that was committed. The frontier moves with the last page, to the time at
which the poll began: what was confirmed later may be missing.

A page of which most records are bad is not taken: dead letters are not requested again, so the cursor must not pass
what is unreadable after a change of the service's format.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
)

from contracts import datasets
from contracts.schemas import load
from contracts.settings import KafkaSettings, SoapSettings
from contracts.times import EPOCH
from contracts.topics import PAYMENT_CONFIRMATIONS, Topic
from kafka_client.errors import Refused
from kafka_client.registry import Registry
from lineage.emitter import OnProgress, no_progress
from observability import logs
from observability.progress_report import ProgressReport
from sources.events_topic import EventsTopic
from sources.position_store import DeadLetters, PositionStore, Record, SourceOffset, registry_answers
from sources.soap.client import PaymentService
from sources.soap.confirmation import SOURCE, events
from sources.soap.errors import Unavailable
from sources.soap.following import behind, refuse_mostly_bad, refuse_to_turn_in_circles
from sources.soap.pages import Bad, Page
from sources.soap.transport import Limits

_log = logs.get(__name__)

# After a change of the topic.
ANEW = "To read the service's list from its beginning into this one: electrored soap poll --from ''"
# A page is one Kafka transaction, which may last about 50 ms; 500 events take a tenth of that.
PAGE = 500
# Attempts at a page, with waits of about 0.5, 1, 2 and 4 s between: more are left to the next poll.
ATTEMPTS = 5
# No attempt begins later than this after the first.
ASKING_SECONDS = 120.0
# A poll that takes longer is ended between two pages: the schedule is 5 minutes, and a service whose list has no end
# has to be noticed.
POLL_SECONDS = 240.0


@dataclass(frozen=True)
class Topics:
    """Where a poll writes to."""

    confirmations: Topic
    positions: Topic
    dead_letters: Topic


@dataclass
class Result:
    """Counts of a poll's committed pages. `amounts`: sums of what was confirmed and refunded, by currency.

    `passed_over`: elements that the contract does not name, and how often they occurred.
    """

    pages: int
    confirmations: int
    dead: int
    amounts: dict[str, Decimal]
    cursor_before: str
    cursor_after: str
    seconds: float
    passed_over: Counter[str] = field(default_factory=Counter)


def utc_now() -> datetime:
    return datetime.now(UTC)


def poll(
    kafka: KafkaSettings,
    soap: SoapSettings,
    topics: Topics,
    *,
    begin: str | None = None,
    set_aside: bool = False,
    limits: Limits | None = None,
    page: int = PAGE,
    seconds: float = POLL_SECONDS,
    now: Callable[[], datetime] = utc_now,
    on_progress: OnProgress = no_progress,
) -> Result:
    """Read to the end of what the service has; blocks, up to some minutes.

    `begin` is a cursor to go on from instead of the position's, the empty one the beginning of the service's list: what
    comes again counts once, because a payment is known by its id. With `set_aside` pages of which most records are
    bad are taken too. `on_progress` is called after each page.
    Raises Faulted with the text of the SOAP fault, Untrusted, Unavailable after all attempts, MostlyBad for a page that
    is not taken, Refused for a list without an end, Fenced when another poll took over, Retriable when Kafka does not
    answer. What was read until then is kept, and the cursor is behind it.
    """
    service = PaymentService(soap, limits)
    own, others = f"sources.{SOURCE}", (topics.dead_letters,)
    store = PositionStore(kafka, SOURCE, own, topics.positions, topics.confirmations, others)
    try:
        return _Poll(kafka, topics, store, service, now, on_progress, begin, set_aside).run(page, seconds)
    finally:
        store.close()


class _Poll:
    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Topics,
        store: PositionStore,
        service: PaymentService,
        now: Callable[[], datetime],
        on_progress: OnProgress,
        begin: str | None,
        set_aside: bool,
    ) -> None:
        self._on_progress = on_progress
        self._set_aside = set_aside
        self._topics = topics
        self._store = store
        self._service = service
        store.open()
        with registry_answers():
            subject, schema = topics.confirmations.subject, load(topics.confirmations.schema)
            self._codec = Registry(kafka).codec(subject, schema)
        self._dead_letters = DeadLetters(kafka, topics.dead_letters, store.room(topics.dead_letters))
        log = EventsTopic(kafka, topics.confirmations)
        # As the position's JSON keeps it.
        self._topic = list(current := log.identity())
        # A restored position would reuse seqs, which consumers drop. Without one `open` has read the log already.
        if store.position is not None:
            store.pass_log(whole=begin is not None)
        # Until the first poll is complete, the frontier holds every window.
        position = store.position or SourceOffset(frontier=EPOCH, detail={"cursor": "", "topic": self._topic})
        if begin != "":
            log.check(tuple(position.detail["topic"]), ANEW, current)
        cursor = str(position.detail["cursor"]) if begin is None else begin
        self._result = Result(0, 0, 0, {}, cursor, cursor, 0.0)
        self._position = replace(position, next_seq=store.next_seq)
        # After fencing: what another poll still wrote was recorded before.
        self._began_at = now()
        self._frontier = self._position.frontier or EPOCH
        # After the published frontier even if the clock went back: nothing is recorded below a published frontier.
        self._recorded_at = max(self._began_at, self._frontier + timedelta(microseconds=1))

    def run(self, limit: int, seconds: float) -> Result:
        started = time.monotonic()
        result = self._result
        seen = {result.cursor_after}
        while True:
            cursor = result.cursor_after
            page = behind(cursor, _ask(self._service, cursor, limit), limit)
            refuse_to_turn_in_circles(page, cursor, seen)
            if not self._set_aside:
                refuse_mostly_bad(page, cursor)
            self._write(cursor, page)
            seen.add(page.next_cursor)
            result.seconds = time.monotonic() - started
            if not page.more:
                break
            if result.seconds > seconds:
                raise Refused(
                    f"the service still had more after {result.pages} pages in {result.seconds:.0f} s; "
                    f"they are kept, and the next poll goes on behind the cursor {result.cursor_after!r}"
                )
        _log.info("polled", pages=result.pages, confirmations=result.confirmations, dead=result.dead)
        if result.passed_over:
            _log.warning(
                "elements that the contract does not name were passed over", elements=result.passed_over
            )
        return result

    def _write(self, cursor: str, page: Page) -> None:
        """One page → one Kafka transaction, everything prepared before it begins."""
        position, result = self._position, self._result
        records = events(self._codec, page.good, self._recorded_at, position.next_seq)
        dead = [self._dead_letter(cursor, record) for record in page.bad]
        frontier = self._frontier if page.more else max(self._frontier, self._began_at)
        moved = SourceOffset(
            position.next_seq + len(records), frontier, {"cursor": page.next_cursor, "topic": self._topic}
        )
        topics = self._topics
        self._store.write(moved, {topics.confirmations.name: records, topics.dead_letters.name: dead})
        self._position = moved
        result.pages += 1
        result.confirmations += len(records)
        result.dead += len(dead)
        result.cursor_after = page.next_cursor
        result.passed_over.update(page.passed_over)
        for record in page.good:
            result.amounts[record.currency] = result.amounts.get(record.currency, Decimal(0)) + record.amount
        self._on_progress(self._report())
        _log.debug("page", cursor=page.next_cursor, confirmations=len(records), dead=len(dead))

    def _report(self) -> ProgressReport:
        result, frontier = self._result, self._position.frontier
        return ProgressReport(
            watermark=None if frontier == EPOCH else frontier,
            counts={SOURCE: {"events": result.confirmations, "dead": result.dead}},
            rows={datasets.topic(PAYMENT_CONFIRMATIONS): result.confirmations},
        )

    def _dead_letter(self, cursor: str, bad: Bad) -> Record:
        # A cursor never changes its place, so the key is the record's own.
        key = f"{SOURCE}/0/{cursor}/{bad.index}"
        reason = f"behind cursor {cursor!r}: {bad.reason}"
        return self._dead_letters.record(key, SOURCE, bad.index, reason, bad.xml)


def _ask(service: PaymentService, cursor: str, limit: int) -> Page:
    """Request a page; retries while Unavailable."""

    def warn(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        _log.warning("retrying the payment service", reason=str(error), attempt=state.attempt_number)

    retrying = Retrying(
        retry=retry_if_exception_type(Unavailable),
        wait=wait_exponential_jitter(multiplier=0.5, max=8, jitter=0.5),
        stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(ASKING_SECONDS),
        before_sleep=warn,
        reraise=True,
    )
    return retrying(service.page, cursor, limit)
