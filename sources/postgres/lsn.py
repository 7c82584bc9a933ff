"""Positions in PostgreSQL's WAL, and how it writes them."""

from __future__ import annotations


def lsn_text(lsn: int) -> str:
    """A WAL position as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:08X}"


def lsn_number(text: str) -> int:
    """A WAL position as a number."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)
