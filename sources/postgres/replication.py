"""The stream of a replication slot, confirmed explicitly and never by the driver.

psycopg2's own cursor confirms the position of a keepalive as soon as it has read it, and so runs ahead of the stored
position: after a restart a slot beyond it could no longer be recognised as lost events.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import pq, sql

from kafka_client.errors import ElectroRedError
from sources.postgres.failures import meaning
from sources.postgres.lsn import lsn_number

# XLogData: type, start of the data, end of the WAL on the server, its clock; then the payload.
_DATA = struct.Struct("!cQQq")
# Keepalive: type, end of the WAL up to which everything was sent, the server's clock, whether it requests a reply.
_KEEPALIVE = struct.Struct("!cQqB")
# Status: type, written, flushed, applied, our clock, whether we request a reply.
_STATUS = struct.Struct("!cQQQqB")
_IS_DATA, _IS_KEEPALIVE = b"wk"
# The first version that has this limit.
TRANSACTION_TIMEOUT_SINCE = 170_000
# PostgreSQL counts microseconds from the year 2000.
_EPOCH_SECONDS = 946_684_800


class Replication:
    """A connection in replication mode: which server it is, a new slot, and then a slot's stream.

    Errors of the connection are psycopg's until the stream begins, and Retriable from then on.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        """`parameters`: libpq's, of a plain connection to the slot's database."""
        # Everything up to here was sent to us, with or without changes of our table.
        self.wal_end = 0
        self._confirmed = 0
        self._connection = psycopg.connect(**parameters, replication="database", autocommit=True)
        self._pg = self._connection.pgconn
        if self._connection.info.server_version >= TRANSACTION_TIMEOUT_SINCE:
            self._run(b"set transaction_timeout = 0")
        ((pid,),) = self._run(b"select pg_backend_pid()")
        # The server's own pid, also behind a proxy.
        self.pid = int(pid)

    def identity(self) -> tuple[str, int]:
        """The system id and the timeline of the server."""
        ((system, timeline, *_),) = self._run(b"IDENTIFY_SYSTEM")
        return system, int(timeline)

    def create_slot(self, slot: str) -> tuple[int, str]:
        """Create a slot; returns where its stream begins and the name of its snapshot, valid until the next command.

        Waits for the transactions that are running now, as every logical slot does.
        """
        command = sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'export')")
        ((_, lsn, snapshot, *_),) = self._run(command.format(sql.Identifier(slot)).as_bytes(self._connection))
        return lsn_number(lsn), snapshot

    def start(self, slot: str, options: Mapping[str, str]) -> None:
        """Begin the stream where the slot is confirmed; nothing is confirmed by that."""
        pairs = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in options.items()
        )
        command = sql.SQL("START_REPLICATION SLOT {} LOGICAL 0/0 ({})").format(sql.Identifier(slot), pairs)
        self._run(command.as_bytes(self._connection))

    def cancel(self) -> None:
        """Cancel the command that the server runs for this connection; thread-safe."""
        self._pg.get_cancel().cancel()

    def _run(self, command: bytes) -> list[list[str]]:
        """The rows of an answer; none when a stream begins."""
        result = self._pg.exec_(command)
        if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.COPY_BOTH):
            raise psycopg.errors.error_from_result(result)
        return [
            [(result.get_value(row, column) or b"").decode() for column in range(result.nfields)]
            for row in range(result.ntuples)
        ]

    def fileno(self) -> int:
        return self._pg.socket

    def read(self) -> bytes | None:
        """The next message of the plugin; None if there is none now."""
        try:
            while True:
                size, data = self._pg.get_copy_data(1)
                if size == 0:
                    self._pg.consume_input()
                    size, data = self._pg.get_copy_data(1)
                if size == 0:
                    return None
                if size < 0:
                    raise self._ended()
                if data[0] == _IS_DATA:
                    self.wal_end = _DATA.unpack_from(data)[2]
                    return bytes(data[_DATA.size :])
                if data[0] == _IS_KEEPALIVE:
                    _, self.wal_end, _, wants_answer = _KEEPALIVE.unpack_from(data)
                    if wants_answer:
                        self._send_status(reply=False)
        except psycopg.Error as error:
            raise meaning(error.sqlstate, str(error)) from error

    def _ended(self) -> ElectroRedError:
        """Why the stream ended: the server's error follows its end."""
        result = self._pg.get_result()
        text = result.get_error_message() if result is not None else ""
        sqlstate = result.error_field(pq.DiagnosticField.SQLSTATE) if result is not None else None
        return meaning((sqlstate or b"").decode(), text or "the server ended the stream")

    def confirm(self, lsn: int) -> None:
        """Confirm the slot: everything below is committed to the log."""
        self._confirmed = max(self._confirmed, lsn)
        self._send_status(reply=False)

    def ask(self) -> None:
        """Request the server's position; the answer comes with the stream."""
        self._send_status(reply=True)

    def close(self) -> None:
        self._connection.close()

    def _send_status(self, *, reply: bool) -> None:
        clock = int((time.time() - _EPOCH_SECONDS) * 1_000_000)
        status = _STATUS.pack(b"r", self._confirmed, self._confirmed, self._confirmed, clock, reply)
        try:
            self._pg.put_copy_data(status)
            self._pg.flush()
        except psycopg.Error as error:
            raise meaning(error.sqlstate, str(error)) from error
