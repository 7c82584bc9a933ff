"""A poll writes every confirmation to the log exactly once, whatever the service answers, whenever it is killed."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from confluent_kafka import Producer, TopicPartition

from contracts.topics import PAYMENT_CONFIRMATIONS
from kafka_client import clients
from kafka_client.errors import Fenced, Refused
from kafka_client.registry import header
from observability.progress_report import ProgressReport
from simulators.payments import envelope
from simulators.payments.envelope import SoapFault
from sources.soap import poll as module
from sources.soap.errors import Faulted, MostlyBad, Unavailable
from sources.soap.poll import Result
from tests.support.kafka import committed_values, topic_codec
from tests.support.soap_server import Polls, Reply, Server, entry

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
FAULT = Reply(envelope.fault(SoapFault("soap:Server", "closed for the night")), 500)


def at(moment: datetime) -> object:
    return lambda: moment


def ids(*numbers: int) -> list[str]:
    return [f"p{number}" for number in numbers]


def test_a_poll_reads_to_the_end_and_says_what_it_did(polls: Polls, server: Server) -> None:
    server.has([entry(1), entry(2, currency="USD"), entry(3, status="REFUNDED")])
    said: list[ProgressReport] = []
    result = polls.poll(server.settings(), page=2, now=at(NOON), on_progress=said.append)
    # After each page: the frontier moves with the last one.
    assert [report.counts for report in said] == [{"soap": {"events": n, "dead": 0}} for n in (2, 3)]
    assert [report.watermark for report in said] == [None, NOON]
    assert replace(result, seconds=0) == Result(
        2, 3, 0, {"EUR": Decimal("5"), "USD": Decimal("2.5")}, "", "3", 0
    )
    assert server.posts == [("", 2), ("2", 2)]
    first = polls.confirmations()[0]
    assert first == {
        "source": "soap",
        "seq": 1,
        "payment_id": "p1",
        "sale_id": "s1",
        "amount": Decimal("1.5000"),
        "currency": "EUR",
        "status": "CONFIRMED",
        "confirmed_at": datetime(2026, 11, 2, 12, tzinfo=UTC),
        "recorded_at": NOON,
    }
    assert [found["seq"] for found in polls.confirmations()] == [1, 2, 3]


def test_the_next_poll_goes_on_behind_the_last(polls: Polls, server: Server) -> None:
    server.has([entry(1)])
    polls.poll(server.settings())
    server.has([entry(1), entry(2)])
    result = polls.poll(server.settings())
    assert (result.cursor_before, result.cursor_after, result.confirmations) == ("1", "2", 1)
    assert polls.payment_ids() == ids(1, 2)


def test_a_poll_that_finds_nothing_moves_the_frontier(polls: Polls, server: Server) -> None:
    server.has([])
    assert polls.poll(server.settings(), now=at(NOON)).confirmations == 0
    assert polls.position().frontier == NOON
    polls.poll(server.settings(), now=at(NOON + timedelta(minutes=5)))
    assert polls.position().frontier == NOON + timedelta(minutes=5)


def test_the_frontier_holds_everything_until_the_first_poll_was_complete(
    polls: Polls, server: Server
) -> None:
    server.has([entry(1), entry(2)])
    page = server.answer
    server.answer = lambda cursor, limit: page(cursor, limit) if cursor == "" else FAULT
    with pytest.raises(Faulted, match="Server: closed for the night"):
        polls.poll(server.settings(), page=1, now=at(NOON))
    # The first page counted: the cursor is behind it, and the fault moved nothing.
    assert polls.payment_ids() == ids(1)
    position = polls.position()
    assert (position.frontier, position.detail["cursor"]) == (EPOCH, "1")
    server.answer = page
    polls.poll(server.settings(), now=at(NOON + timedelta(minutes=5)))
    assert polls.payment_ids() == ids(1, 2)
    assert polls.position().frontier == NOON + timedelta(minutes=5)


def test_nothing_is_recorded_at_or_before_a_frontier_that_was_published(polls: Polls, server: Server) -> None:
    server.has([entry(1)])
    polls.poll(server.settings(), now=at(NOON))
    server.has([entry(1), entry(2)])
    # The clock went back.
    polls.poll(server.settings(), now=at(NOON - timedelta(hours=1)))
    assert [found["recorded_at"] for found in polls.confirmations()] == [NOON, NOON + MICROSECOND]
    assert polls.position().frontier == NOON


def test_a_bad_record_goes_to_dead_letters_and_the_page_goes_on(polls: Polls, server: Server) -> None:
    server.has([entry(1), entry(2, amount="about 3"), entry(3), entry(4, sale_id="ß" * 501), entry(5)])
    result = polls.poll(server.settings(), page=3)
    assert (result.pages, result.confirmations, result.dead) == (2, 3, 2)
    assert polls.payment_ids() == ids(1, 3, 5)
    dead = polls.log(polls.topics.dead_letters)
    assert [(key, found["origin"], found["offset"]) for key, found in dead] == [
        (b"soap/0//1", "soap", 1),
        (b"soap/0/3/0", "soap", 0),
    ]
    assert "about 3" in dead[0][1]["reason"]
    assert b"<p:amount>about 3</p:amount>" in dead[0][1]["value"]
    assert "longer than 1000 bytes" in dead[1][1]["reason"]


def test_what_may_pass_is_asked_for_again(polls: Polls, server: Server) -> None:
    server.has([entry(1)])
    page = server.answer
    bad = [Reply(b"busy", 503), Reply(b"<soap:Envel")]
    server.answer = lambda cursor, limit: bad.pop() if bad else page(cursor, limit)
    assert polls.poll(server.settings()).confirmations == 1
    assert len(server.posts) == 3
    assert polls.payment_ids() == ids(1)


@pytest.mark.parametrize(
    ("reply", "error", "words", "requests"),
    [
        (Reply(b"busy", 503), Unavailable, "HTTP 503", 3),
        (FAULT, Faulted, "closed for the night", 1),
    ],
)
def test_a_service_that_stays_away_or_refuses_ends_the_poll(
    polls: Polls,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    reply: Reply,
    error: type[Exception],
    words: str,
    requests: int,
) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 3)
    server.gives(reply)
    with pytest.raises(error, match=words):
        polls.poll(server.settings())
    assert len(server.posts) == requests
    assert polls.log(polls.topics.positions) == []


@pytest.mark.parametrize("cursors", [["1", "1"], ["1", "2", "1"], [""]])
@pytest.mark.parametrize("more", [True, False])
def test_a_cursor_that_stands_or_turns_in_circles_ends_the_poll_before_anything_doubles(
    polls: Polls, server: Server, cursors: list[str], more: bool
) -> None:
    def answer(_cursor: str, _limit: int) -> Reply:
        number = len(server.posts)
        is_last = number == len(cursors)
        return Reply(envelope.page([entry(number)], cursors[number - 1], more if is_last else True))

    server.answer = answer
    with pytest.raises(Refused, match="was passed before"):
        polls.poll(server.settings())
    assert polls.payment_ids() == ids(*range(1, len(cursors)))


def test_a_service_without_an_end_ends_the_poll_and_nothing_is_lost(polls: Polls, server: Server) -> None:
    def answer(cursor: str, _limit: int) -> Reply:
        number = int(cursor or 0) + 1
        return Reply(envelope.page([entry(number)], str(number), True))

    server.answer = answer
    with pytest.raises(Refused, match="still had more after"):
        polls.poll(server.settings(), seconds=0.2)
    read = len(server.posts)
    server.has([entry(number) for number in range(1, read + 2)])
    polls.poll(server.settings())
    assert polls.payment_ids() == ids(*range(1, read + 2))


@pytest.mark.parametrize("kill", ["before 1", "after 1", "before 2", "after 2", "before 3", "after 3"])
def test_a_poll_killed_around_a_commit_leaves_every_confirmation_exactly_once(
    polls: Polls, server: Server, kill: str
) -> None:
    server.has([entry(number) for number in range(1, 12)])
    killed = polls.process(server.settings(), TEST_KILL=kill, TEST_PAGE="4")
    assert killed.wait(120) == -signal.SIGKILL
    result = polls.poll(server.settings(), page=3)
    assert result.cursor_after == "11"
    found = polls.confirmations()
    assert [one["payment_id"] for one in found] == ids(*range(1, 12))
    assert [one["seq"] for one in found] == list(range(1, 12))


def test_of_two_polls_the_later_takes_over_and_nothing_doubles(polls: Polls, server: Server) -> None:
    server.has([entry(1), entry(2)])
    page = server.answer
    asked, go_on = threading.Event(), threading.Event()

    def slowly(cursor: str, limit: int) -> Reply:
        if len(server.posts) == 2:
            asked.set()
            assert go_on.wait(120)
        return page(cursor, limit)

    server.answer = slowly
    ended: list[BaseException] = []

    def first() -> None:
        try:
            polls.poll(server.settings(), page=1)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert asked.wait(120)
    polls.poll(server.settings(), page=1)
    go_on.set()
    thread.join(60)
    assert [type(error) for error in ended] == [Fenced]
    assert polls.payment_ids() == ids(1, 2)


def forget(polls: Polls, position: bytes | None = None) -> None:
    """The position becomes another one, or none."""
    producer = Producer(clients.client_config(polls.stack.kafka))
    producer.produce(polls.topics.positions.name, position, key=b"soap")
    assert producer.flush(30) == 0


def raw_position(polls: Polls) -> bytes:
    found = [v for k, v in committed_values(polls.stack.kafka, polls.topics.positions) if k == b"soap"]
    assert found[-1] is not None
    return found[-1]


def seqs_of(polls: Polls, payment_id: str) -> list[int]:
    return [one["seq"] for one in polls.confirmations() if one["payment_id"] == payment_id]


@pytest.mark.parametrize("is_gone", [True, False], ids=["gone", "from before"])
def test_row_21_a_poll_without_its_position_goes_on_above_every_seq_of_the_log(
    polls: Polls, server: Server, is_gone: bool
) -> None:
    """Or consumers drop what comes next: each seq that they saw before is a duplicate."""
    server.has([entry(number) for number in range(1, 5)])
    polls.poll(server.settings())
    before = raw_position(polls)
    server.has([entry(number) for number in range(1, 15)])
    polls.poll(server.settings(), page=4)
    forget(polls, None if is_gone else before)
    # Something that is no event, and one of another source's in the same log: neither hinders nor counts.
    producer = Producer(clients.client_config(polls.stack.kafka))
    other = next(
        value for _, value in committed_values(polls.stack.kafka, polls.topics.confirmations) if value
    )
    # And one of another registry: our layout, under an id that ours does not have.
    lost = header(424242) + other[5:]
    for value in (b"no event", other[:7], lost, other[:5] + b"\x08pups" + other[10:]):
        producer.produce(polls.topics.confirmations.name, value, key=b"s1")
    assert producer.flush(30) == 0

    server.has([entry(number) for number in range(1, 28)])
    result = polls.poll(server.settings(), page=4)
    assert result.cursor_before == ("" if is_gone else "4")
    known = topic_codec(polls.stack.kafka, polls.topics.confirmations)
    log = [
        known.decode(value)
        for _, value in committed_values(polls.stack.kafka, polls.topics.confirmations)
        if value is not None and value not in (b"no event", other[:7], lost)
    ]
    own = sorted((one for one in log if one["source"] == "soap"), key=lambda one: one["seq"])
    assert [one["payment_id"] for one in own[:14]] == ids(*range(1, 15))
    assert [one["payment_id"] for one in own[14:]] == ids(*range(1 if is_gone else 5, 28))
    assert [one["seq"] for one in own] == list(range(1, len(own) + 1))


def test_row_21_a_log_that_lost_its_beginning_with_the_position_is_refused(
    polls: Polls, server: Server
) -> None:
    server.has([entry(1)])
    polls.poll(server.settings())
    forget(polls)
    name = polls.topics.confirmations.name
    client = clients.admin(polls.stack.kafka)
    all_of_it = [TopicPartition(name, number, -1) for number in range(polls.topics.confirmations.partitions)]
    for future in client.delete_records(all_of_it).values():
        future.result()
    with pytest.raises(Refused, match=f"{name} has lost its beginning"):
        polls.poll(server.settings())


def test_row_20_records_with_an_element_more_are_taken(polls: Polls, server: Server) -> None:
    server.has([entry(number) for number in range(1, 4)])
    page = server.answer

    def with_more(cursor: str, limit: int) -> Reply:
        return Reply(
            page(cursor, limit).body.replace(
                b"</p:confirmation>", b"<p:loyalty>9</p:loyalty></p:confirmation>"
            )
        )

    server.answer = with_more
    result = polls.poll(server.settings())
    assert (result.confirmations, result.dead, result.passed_over) == (3, 0, {"loyalty": 3})
    assert polls.payment_ids() == ids(1, 2, 3)


def test_row_20_a_page_of_nothing_good_waits_and_is_taken_when_the_service_is_mended(
    polls: Polls, server: Server
) -> None:
    server.has([entry(1)])
    polls.poll(server.settings())
    server.has([entry(1), *(entry(number, status="PAID") for number in range(2, 5))])
    with pytest.raises(MostlyBad, match=r"3 of 3 records .*PAID.* the cursor stays .*--set-aside"):
        polls.poll(server.settings())
    assert polls.position().detail["cursor"] == "1"
    assert polls.log(polls.topics.dead_letters) == []
    server.has([entry(number) for number in range(1, 5)])
    polls.poll(server.settings())
    assert polls.payment_ids() == ids(1, 2, 3, 4)


def test_row_20_bad_records_that_are_set_aside_come_back_with_a_poll_from_before(
    polls: Polls, server: Server
) -> None:
    bad = [entry(1), *(entry(number, status="PAID") for number in range(2, 5)), entry(5)]
    server.has(bad)
    assert polls.poll(server.settings(), set_aside=True).dead == 3
    server.has([entry(number) for number in range(1, 7)])
    # As a person does it.
    again = polls.process(server.settings(), TEST_ARGUMENTS="--from 1")
    assert again.wait(120) == 0
    found = polls.confirmations()
    assert [one["payment_id"] for one in found] == ids(1, 5, 2, 3, 4, 5, 6)
    assert [one["seq"] for one in found] == list(range(1, 8))
    assert polls.position().detail["cursor"] == "6"
    # The next one goes on as always; the beginning is the empty cursor.
    assert polls.poll(server.settings()).confirmations == 0
    assert polls.poll(server.settings(), begin="", page=4).confirmations == 6
    assert seqs_of(polls, "p1") == [1, 8]


def test_row_20_a_topic_that_was_made_again_is_filled_from_the_beginning(
    polls: Polls, server: Server
) -> None:
    server.has([entry(1), entry(2)])
    polls.poll(server.settings())
    other = replace(PAYMENT_CONFIRMATIONS, name=f"{polls.topics.confirmations.name}-again")
    clients.ensure_topics(polls.stack.kafka, [other])
    again = Polls(polls.stack, replace(polls.topics, confirmations=other))
    with pytest.raises(Refused, match=r"was re-created or resized.*--from ''"):
        again.poll(server.settings())
    with pytest.raises(Refused, match="re-created"):
        again.poll(server.settings(), begin="1")
    again.poll(server.settings(), begin="")
    assert again.payment_ids() == ids(1, 2)
    assert again.poll(server.settings()).confirmations == 0


def test_row_20_empty_pages_with_ever_new_cursors_end_the_poll(polls: Polls, server: Server) -> None:
    server.answer = lambda cursor, _limit: Reply(envelope.page([], str(int(cursor or 0) + 1), True))
    with pytest.raises(Refused, match="still had more after"):
        polls.poll(server.settings(), seconds=0.2)


def test_row_20_an_unknown_cursor_to_begin_from_is_the_services_to_refuse(
    polls: Polls, server: Server
) -> None:
    server.gives(Reply(envelope.fault(SoapFault("soap:Client", "the cursor 'x' is not one of ours")), 500))
    with pytest.raises(Faulted, match="not one of ours"):
        polls.poll(server.settings(), begin="x")
    assert polls.log(polls.topics.positions) == []
