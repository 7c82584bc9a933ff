"""Formats of our OpenAPI description for schemathesis; loaded by SCHEMATHESIS_HOOKS."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st

from contracts import texts


def _is_name(text: str) -> bool:
    try:
        return bool(texts.name(text))
    except texts.Refused:
        return False


# Bytes are limited too, and a character has four at most.
schemathesis.openapi.format(
    "visible-text", st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).filter(_is_name)
)
