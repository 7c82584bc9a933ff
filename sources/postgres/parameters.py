"""How capture connects to the sales database, in either mode."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL

from contracts.settings import KEEPALIVES

CONNECT_SECONDS = 10
# Limits that are set for a role or a database would end capture's work again and again. `transaction_timeout`, which
# only newer servers have, is lifted after the connection is open.
SESSION = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    # Of replication: the server ends a stream that is silent for longer. Capture reports its place every second, and a
    # turn of it may take some.
    "wal_sender_timeout": "60s",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "search_path": "pg_catalog",
}


def parameters(url: URL) -> dict[str, Any]:
    """libpq's, with the session's own settings, which a connection in replication mode takes as well."""
    query = dict(url.query)
    # A blank within a value is escaped for libpq.
    own = ["-c " + f"{name}={value}".replace(" ", "\\ ") for name, value in SESSION.items()]
    query["options"] = " ".join([*filter(None, [str(query.get("options", ""))]), *own])
    return {
        "host": url.host, "port": url.port, "user": url.username, "password": url.password, "dbname": url.database,
        "connect_timeout": CONNECT_SECONDS, "application_name": "electrored-capture", "client_encoding": "UTF8",
        **KEEPALIVES, **query,
    }  # fmt: skip
