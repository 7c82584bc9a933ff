"""Normalises the texts of events, so that events of older releases group with new ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from contracts import texts


@dataclass(frozen=True)
class NormalTexts:
    """Which texts are names and which descriptions: a name with invisible characters becomes null."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...] = ()

    def readers(self, columns: Sequence[str]) -> dict[str, Callable[[str], str | None]]:
        """How a text of each of these columns is read, for those that are normalised."""
        known = dict.fromkeys(self.names, _name) | dict.fromkeys(self.descriptions, _description)
        return {name: known[name] for name in columns if name in known}


@texts.kept
def _name(text: str) -> str | None:
    try:
        return texts.visible(text)
    except texts.Refused:
        return None


_description = texts.kept(texts.description)
