"""The stream of a replication slot, told by nobody but us how far it is confirmed.

psycopg2's own cursor confirms what a keepalive says as soon as it has read it, and so runs ahead of the ledger: after
a restart of either server nobody could say any more whether a slot beyond the ledger means lost events.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import pq, sql

from sources.errors import Interrupted
from sources.postgres.stream import lsn_text

# XLogData: type, start of the data, end of the WAL on the server, its clock; then the payload.
_DATA = struct.Struct("!cQQq")
# Keepalive: type, end of the WAL up to which everything was sent, the server's clock, whether it wants an answer.
_KEEPALIVE = struct.Struct("!cQqB")
# Status: type, written, flushed, applied, our clock, whether we want an answer.
_STATUS = struct.Struct("!cQQQqB")
_IS_DATA, _IS_KEEPALIVE = b"wk"
# PostgreSQL counts microseconds from the year 2000.
_EPOCH_SECONDS = 946_684_800


class Replication:
    """A slot's stream from a position on. Errors of the connection are Interrupted."""

    def __init__(
        self, parameters: Mapping[str, Any], slot: str, start_lsn: int, options: Mapping[str, str]
    ) -> None:
        """`parameters`: libpq's, of a plain connection to the slot's database."""
        # Everything up to here was sent to us, whether there was something for us in it or not.
        self.wal_end = 0
        self._confirmed = start_lsn
        try:
            self._connection = psycopg.connect(**parameters, replication="database", autocommit=True)
            self._pg = self._connection.pgconn
            self._begin(slot, start_lsn, options)
        except psycopg.Error as error:
            raise _interrupted(error) from error

    def _begin(self, slot: str, start_lsn: int, options: Mapping[str, str]) -> None:
        pairs = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in options.items()
        )
        command = sql.SQL("START_REPLICATION SLOT {} LOGICAL {} ({})").format(
            sql.Identifier(slot), sql.SQL(lsn_text(start_lsn)), pairs
        )
        result = self._pg.exec_(command.as_bytes(self._connection))
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise Interrupted(f"PostgreSQL: {result.get_error_message()}")

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
                    raise Interrupted("PostgreSQL ended the stream")
                if data[0] == _IS_DATA:
                    self.wal_end = _DATA.unpack_from(data)[2]
                    return bytes(data[_DATA.size :])
                if data[0] == _IS_KEEPALIVE:
                    # A wish for an answer needs none at once: within a second we say how far we are anyway.
                    self.wal_end = _KEEPALIVE.unpack_from(data)[1]
        except psycopg.Error as error:
            raise _interrupted(error) from error

    def confirm(self, lsn: int) -> None:
        """The server may forget what is below: it is committed to the log."""
        self._confirmed = max(self._confirmed, lsn)
        self._tell(reply=False)

    def ask(self) -> None:
        """Have the server say how far it has read; the answer comes with the stream."""
        self._tell(reply=True)

    def close(self) -> None:
        self._connection.close()

    def _tell(self, *, reply: bool) -> None:
        clock = int((time.time() - _EPOCH_SECONDS) * 1_000_000)
        status = _STATUS.pack(b"r", self._confirmed, self._confirmed, self._confirmed, clock, reply)
        try:
            self._pg.put_copy_data(status)
            self._pg.flush()
        except psycopg.Error as error:
            raise _interrupted(error) from error


def _interrupted(error: psycopg.Error) -> Interrupted:
    return Interrupted(f"PostgreSQL: {' '.join(str(error).split())}")
