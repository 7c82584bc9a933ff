"""The position of a source, kept in `source-positions` and moved in the Kafka transaction of the events it covers.

A position store belongs to one source and holds its one producer: `open` fences the previous owner, and only
then reads the position back, so that what is read is final.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.schema_registry.error import SchemaRegistryError

from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import Topic
from kafka_client import clients, topic_settings
from kafka_client.errors import ElectroRedError, Fenced, Refused, Retriable
from kafka_client.reader import Reader
from kafka_client.registry import Codec, Registry, Unreachable, reason
from kafka_client.writer_schemas import LostSchema, Undecodable
from observability import logs
from observability.metrics import TRANSACTION_SECONDS, TRANSACTIONS
from sources.log import GreatestSeq, ends, greatest_seq, last

_log = logs.get(__name__)

# Reading back starts with the broker's answer; an open transaction of another source may hold it back this long.
READ_BACK_SECONDS = 4 * clients.TRANSACTION_TIMEOUT_MS / 1_000


FileState = Literal["TAKING", "DONE", "REJECTED", "LOST", "RETRACTING", "RETRACTED"]


@dataclass(frozen=True)
class SourceOffset:
    """The position of a source. `frontier` None holds no window back, the epoch holds every window back."""

    next_seq: int = 1
    frontier: datetime | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Range:
    """A chunk of a snapshot that is in the log; `upper_key` None is open-ended."""

    number: int
    upper_key: str | None
    snapshot: str


@dataclass(frozen=True)
class FileRecord:
    """A file, identified by its content; the events of its rows have `first_seq` ≤ seq < `next_seq`.

    `rows` are done; `detail` is the place behind them and what became of them. `entered_at` is their recorded_at.
    """

    sha256: str
    name: str
    size: int
    entered_at: datetime
    state: FileState
    first_seq: int
    next_seq: int
    rows: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)


OUTCOMES: Mapping[type[ElectroRedError], str] = {Fenced: "fenced", Refused: "refused", Retriable: "unknown"}
# Framing that Kafka adds to a record that is alone in its batch, with room to spare.
FRAMING_BYTES = 500
# Key and value of a record to write.
Record = tuple[bytes, bytes]


class PositionStore:
    """The position of one source and the transaction that moves it. Single-threaded.

    No seq is given twice, whatever became of the position: without one, `next_seq` is above every seq that the
    source's log holds, because consumers drop every seq that is not above their last. `others`: the topics beside
    that log that its records go to.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        source: str,
        transactional_id: str,
        topic: Topic,
        log: Topic,
        others: Iterable[Topic] = (),
    ) -> None:
        self._settings = settings
        self._source = source
        self._transactional_id = transactional_id
        self._topic = topic
        self._names = (topic.name, log.name, *(other.name for other in others))
        self._limits: dict[str, int] = {}
        self._log = log
        self._greatest_seq = GreatestSeq()
        self._producer: Producer | None = None
        self._codec: Codec | None = None
        self._fenced: Fenced | None = None
        # From 0 on, or an increase would not count the first.
        for outcome in ("committed", *OUTCOMES.values()):
            TRANSACTIONS.labels(source, outcome)
        # Filled by `open`; no position: the source has never written, or it is lost.
        self.position: SourceOffset | None = None
        self.next_seq = 1
        self.ranges: tuple[Range, ...] = ()
        self.files: dict[str, FileRecord] = {}

    def open(self) -> None:
        """Fence any predecessor, end its transaction, and read the position back.

        Also the way out of a transaction whose outcome is unknown. Raises Retriable when Kafka does not answer, and
        Fenced once it was: opening again would take the source from the new owner.
        """
        if self._fenced is not None:
            raise self._fenced
        self.close()
        check_kept(self._settings, self._topic, whole=True)
        try:
            if self._codec is None:
                with registry_answers():
                    self._codec = Registry(self._settings).codec(
                        self._topic.subject, load(self._topic.schema)
                    )
            self._limits = clients.record_limits(self._settings, self._names)
            self._producer = clients.transactional_producer(
                self._settings, self._transactional_id, min(self._limits.values())
            )
            self._producer.init_transactions(clients.TIMEOUT_SECONDS)
            self._read_back(self._codec)
            self.next_seq = self.position.next_seq if self.position is not None else 1
            if self.position is None:
                self.pass_log(whole=True)
        except KafkaException as error:
            self.close()
            raise meaning(error) from error

    def room(self, topic: Topic) -> int:
        """How many bytes a record's key and value may have in one of the topics, as it was when this was opened."""
        return self._limits[topic.name] - FRAMING_BYTES

    def pass_log(self, *, whole: bool) -> None:
        """Go on above every seq of the source in its log, or in the end of one that it has for itself.

        The whole of a million events takes some seconds.
        """
        try:
            with registry_answers():
                codec = Registry(self._settings).codec(self._log.subject, load(self._log.schema))
                if whole:
                    self._greatest_seq = greatest_seq(
                        self._settings, codec, self._source, self._log, self._greatest_seq
                    )
                    greatest = self._greatest_seq.seq
                else:
                    greatest = last(self._settings, codec, self._source, self._log)
        except KafkaException as error:
            raise meaning(error) from error
        if self.position is not None and greatest >= self.next_seq:
            _log.error("the position is behind the log", seq=self.next_seq, greatest=greatest)
        self.next_seq = max(self.next_seq, greatest + 1)

    def check_ownership(self) -> None:
        """Raises Fenced if another process has taken over: opening again would take the source back from it.

        No-op while the producer is closed. Raises Fenced even if another thread saw the fencing first.
        """
        if self._fenced is not None:
            raise self._fenced
        if self._producer is None or self.position is None:
            return
        try:
            self.write(self.position, {})
        except Retriable as error:
            _log.warning("ownership could not be checked", reason=str(error))

    def close(self) -> None:
        """Let the producer go; what was not committed is aborted by the next one, or by the broker.

        The producer's own `close` would abort first, and wait for ever for a broker that is away.
        """
        if self._producer is not None:
            self._producer.purge()
            self._producer = None

    def write(
        self,
        position: SourceOffset,
        records: Mapping[str, Sequence[Record]],
        ranges: Iterable[Range] = (),
        *,
        forget_ranges: bool = False,
        files: Iterable[FileRecord] = (),
    ) -> None:
        """Write records by topic, finished ranges, files and the position, all or nothing.

        When it returns, everything is committed. When it raises, the caller starts again from `position` after
        `open`: the position read back shows whether this transaction was committed.
        """
        producer, codec = self._producer, self._codec
        if producer is None or codec is None:
            raise Retriable("the position store is not open", on="kafka")
        if position.next_seq < self.next_seq:
            raise Refused(f"the seq {position.next_seq} of {self._source} is already in use")
        ranges, files = tuple(ranges), tuple(files)
        own: list[Record] = [(self._range_key(r.number), self._encode_range(codec, r)) for r in ranges]
        own += [(self._file_key(f.sha256), self._encode_file(codec, f)) for f in files]
        own.append((self._source.encode(), self._encode_position(codec, position)))
        gone = [self._range_key(r.number) for r in self.ranges] if forget_ranges else []
        began = time.perf_counter()
        try:
            producer.begin_transaction()
            for topic, batch in records.items():
                _produce(producer, topic, batch)
            _produce(producer, self._topic.name, own)
            for key in gone:
                producer.produce(self._topic.name, None, key)
            producer.commit_transaction(clients.TIMEOUT_SECONDS)
        except (KafkaException, BufferError) as error:
            # Not even an abort is tried: the next producer's `init_transactions` settles it, whatever it was.
            self.close()
            meant = meaning(error)
            if isinstance(meant, Refused) and self._are_limits_others():
                meant = Retriable(f"max.message.bytes of a topic was changed ({error})", on="kafka")
            if isinstance(meant, Fenced):
                self._fenced = meant
            TRANSACTIONS.labels(self._source, OUTCOMES[type(meant)]).inc()
            raise meant from error
        TRANSACTIONS.labels(self._source, "committed").inc()
        TRANSACTION_SECONDS.labels(self._source).observe(time.perf_counter() - began)
        self.position, self.next_seq = position, position.next_seq
        self.ranges = () if forget_ranges else self.ranges + ranges
        self.files.update((file.sha256, file) for file in files)

    def _are_limits_others(self) -> bool:
        """Whether the topics take records of other sizes than when this was opened."""
        try:
            return clients.record_limits(self._settings, self._names) != self._limits
        except KafkaException as error:
            _log.warning("the topics' limits could not be asked for", reason=str(error))
            return False

    def _range_key(self, number: int) -> bytes:
        return f"{self._source}/range/{number}".encode()

    def _file_key(self, sha256: str) -> bytes:
        return f"{self._source}/file/{sha256}".encode()

    def _encode_position(self, codec: Codec, position: SourceOffset) -> bytes:
        return codec.encode(
            (
                "electrored.SourcePosition",
                {
                    "source": self._source,
                    "next_seq": position.next_seq,
                    "frontier": position.frontier,
                    "detail": json.dumps(position.detail),
                },
            )
        )

    def _encode_range(self, codec: Codec, range_: Range) -> bytes:
        return codec.encode(
            (
                "electrored.SnapshotRange",
                {
                    "source": self._source,
                    "number": range_.number,
                    "upper_key": range_.upper_key,
                    "snapshot": range_.snapshot,
                },
            )
        )

    def _encode_file(self, codec: Codec, file: FileRecord) -> bytes:
        record = {**vars(file), "source": self._source, "detail": json.dumps(file.detail)}
        return codec.encode(("electrored.FileEntry", record))

    def _read_back(self, codec: Codec) -> None:
        """Everything below the end that any transaction, open ones included, had reached when this began."""
        end = ends(self._settings, self._topic.name, 1)[0]
        position: SourceOffset | None = None
        ranges: dict[bytes, Range] = {}
        files: dict[str, FileRecord] = {}
        passed_over: dict[bytes, str] = {}
        for key, value in self._committed_below(end):
            try:
                if key == self._source.encode():
                    position = _position(codec, value) if value is not None else None
                elif key.startswith(f"{self._source}/range/".encode()):
                    if value is None:
                        ranges.pop(key, None)
                    else:
                        ranges[key] = _range(codec, value)
                elif key.startswith(of_file := f"{self._source}/file/".encode()):
                    if value is None:
                        files.pop(key.removeprefix(of_file).decode(), None)
                    else:
                        file = _file(codec, value)
                        files[file.sha256] = file
                else:
                    continue
                passed_over.pop(key, None)
            except Undecodable as error:
                passed_over[key] = str(error)
        self._check_passed_over(passed_over, {*ranges, *map(self._file_key, files)}, position)
        self.position = position
        self.files = files
        self.ranges = tuple(sorted(ranges.values(), key=lambda r: r.number))

    def _check_passed_over(
        self, reasons: Mapping[bytes, str], known: set[bytes], position: SourceOffset | None
    ) -> None:
        """Skip a foreign value under one of our keys, as long as our own record can still be read.

        Ours is the newest valid one under its key. Once compaction has removed it, nothing is guessed: Refused.
        """
        for key, why in reasons.items():
            name = key.decode(errors="backslashreplace")
            if key not in known and (key != self._source.encode() or position is None):
                raise Refused(
                    f"{self._topic.name} holds a foreign record under the key {name} ({why}), and ours before "
                    "it is gone: another program writes there. Revoke its right (`python -m "
                    'contracts acls` lists the users that need it); then see "Backup and restore" in docs/operations.md'
                )
            _log.warning(
                "a foreign record is skipped: only sources may write there",
                topic=self._topic.name,
                key=name,
                reason=why,
            )

    def _committed_below(self, end: int) -> Iterator[tuple[bytes, bytes | None]]:
        with Reader(self._settings, f"sources.{self._source}", self._topic.name) as reader:
            reader.seek({0: 0})
            for messages in reader.read_to({0: end}, READ_BACK_SECONDS):
                yield from ((message.key() or b"", message.value()) for message in messages)


def _produce(producer: Producer, topic: str, records: Sequence[Record]) -> None:
    messages = [{"key": key, "value": value} for key, value in records]
    queued = producer.produce_batch(topic, messages)
    if queued != len(messages):
        reason = next(message["_error"] for message in messages if "_error" in message)
        raise KafkaException(
            reason if isinstance(reason, KafkaError) else KafkaError(KafkaError._FAIL, str(reason))
        )


# No right, not there, another schema, an invalid one: the same answer to every retry.
_REGISTRY_REFUSALS = (400, 401, 403, 404, 409, 422)


@contextmanager
def registry_answers() -> Iterator[None]:
    """Turn a registry that is away, or still starting, into Retriable; what it would refuse again into Refused."""
    try:
        yield
    except (Unreachable, SchemaRegistryError) as error:
        message = reason(error)
        if isinstance(error, SchemaRegistryError) and error.http_status_code in _REGISTRY_REFUSALS:
            raise Refused(
                f"the schema registry refuses ({message}): is ELECTRORED_SCHEMA_REGISTRY_URL right, may we write "
                "there, and does it hold another schema than this version's?"
            ) from error
        problem = f"the schema registry does not answer ({message}): start it; this goes on by itself"
        raise Retriable(problem, on="registry") from error


def meaning(error: Exception) -> ElectroRedError:
    """A Kafka failure as an error of a source: Retriable, Refused or Fenced."""
    cause = error.args[0] if error.args else None
    # First: a producer without the right is reported as fatal too.
    if isinstance(cause, KafkaError) and clients.is_forbidden(cause):
        return Refused(
            f"Kafka refuses ({cause.str()}): give the Kafka user of this process the right (`python -m "
            "contracts acls` lists them), or mend its credentials (ELECTRORED_KAFKA_…)"
        )
    if isinstance(cause, KafkaError) and clients.is_fenced(cause):
        return Fenced("another process has taken over this source; this one ends")
    if isinstance(cause, KafkaError) and cause.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return Refused(
            f"a record is larger than Kafka takes, and would be again: raise max.message.bytes of its topic, or give "
            f"the right to ask for it (DescribeConfigs; `python -m contracts acls` lists it) ({error})"
        )
    return Retriable(f"Kafka: {error}", on="kafka")


def check_kept(settings: KafkaSettings, topic: Topic, *, whole: bool = False) -> None:
    """Raise Refused if the topic would not keep what is written to it, or if `whole` and some of it is gone.

    Raises Retriable when Kafka does not answer.
    """
    try:
        topic_settings.check(settings, [topic], whole=[topic] if whole else ())
    except topic_settings.NotKept as error:
        raise Refused(str(error)) from error
    except KafkaException as error:
        raise meaning(error) from error


def _position(codec: Codec, value: bytes) -> SourceOffset:
    record = _record(codec, value, "electrored.SourcePosition")
    return SourceOffset(record["next_seq"], record["frontier"], record["detail"])


def _range(codec: Codec, value: bytes) -> Range:
    record = _record(codec, value, "electrored.SnapshotRange")
    return Range(record["number"], record["upper_key"], record["snapshot"])


def _file(codec: Codec, value: bytes) -> FileRecord:
    record = _record(codec, value, "electrored.FileEntry")
    return FileRecord(**{each.name: record[each.name] for each in fields(FileRecord)})


def _record(codec: Codec, value: bytes, kind: str) -> dict[str, Any]:
    """The record with its detail parsed. Raises Undecodable if it is none of that kind."""
    try:
        with registry_answers():
            name, record = codec.decode(value)
    except LostSchema as error:
        # The record before it is an older position, which must not be resumed from.
        raise Refused(str(error)) from error
    if name != kind:
        raise Undecodable(f"a {name} and no {kind}")
    if "detail" not in record:
        return dict(record)
    try:
        return {**record, "detail": json.loads(record["detail"])}
    except ValueError as error:
        raise Undecodable(f"its detail is no JSON: {error}") from error


class DeadLetters:
    """Encoder of what cannot be taken, cut to `room`: the bytes of a record in the topic."""

    def __init__(self, settings: KafkaSettings, topic: Topic, room: int = clients.MOST_RECORD_BYTES) -> None:
        self._room = room
        with registry_answers():
            self._codec = Registry(settings).codec(topic.subject, load(topic.schema))

    def record(self, key: str, origin: str, offset: int, reason: str, value: bytes | None) -> Record:
        room = max(0, self._room - len(key.encode()) - len(origin.encode()) - len(reason.encode()))
        if value is not None and len(value) > room:
            value = value[:room].decode(errors="ignore").encode()
        return key.encode(), self._codec.encode(
            {"origin": origin, "partition": 0, "offset": offset, "reason": reason, "value": value}
        )
