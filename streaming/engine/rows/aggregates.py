"""Aggregates over rows: what an event contributes, and the merge of contributions, partials and totals.

A group is a dict of the pipeline's fields. While it is merged its lists are dicts, by the key of their items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Protocol, assert_never

from streaming.engine.aggregates import (
    MOST_CHARACTERS,
    Aggregate,
    ArgMax,
    Count,
    Field,
    LateStats,
    NestedGroups,
    Sum,
)

Row = Mapping[str, Any]
Group = dict[str, Any]


class RowAggregate(Protocol):
    """An aggregate's part of a group."""

    # Its fields of a group that nothing was added to.
    empty: Row

    def contribution(self, event: Row) -> Row:
        """Its fields of a partial of one event, which has `sign` and, in a pipeline with windows, `is_late`."""

    def merge(self, group: Group, other: Row) -> None:
        """Merge its fields of a contribution, a partial or a total into a group."""


class Groups:
    """Groups of some aggregates by their keys, in order of their first row."""

    def __init__(self, fields: Sequence[Field], aggregates: Sequence[Aggregate]) -> None:
        """`fields` are all of a group: those of no key and none of these aggregates are null."""
        self._aggregates = [_interpreted(one) for one in aggregates]
        self._lists = [one for one in self._aggregates if isinstance(one, _NestedGroups)]
        self._empty: Group = dict.fromkeys((field.name for field in fields), None)
        for one in self._aggregates:
            self._empty |= one.empty
        self._groups: dict[Any, Group] = {}

    def add(self, key: Any, key_fields: Row, event: Row) -> None:
        """An event of the group, whose first one gives it its key's fields."""
        group = self._group(key, key_fields)
        for one in self._aggregates:
            one.merge(group, one.contribution(event))

    def merge(self, key: Any, key_fields: Row, other: Row) -> None:
        """A partial or total of the group."""
        group = self._group(key, key_fields)
        for one in self._aggregates:
            one.merge(group, other)

    def finished(self) -> dict[Any, Group]:
        """The groups, to be encoded; what is added after it is of others."""
        groups, self._groups = self._groups, {}
        for group in groups.values():
            for one in self._lists:
                one.finish(group)
        return groups

    def clear(self) -> None:
        self._groups = {}

    def _group(self, key: Any, key_fields: Row) -> Group:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = {**self._empty, **key_fields}
        return group


class _Added:
    """Fields that are added, each within so many bits, as columns do: beyond them the sum wraps."""

    def __init__(self, names: Sequence[str], bits: int) -> None:
        self._names = names
        self._half = 1 << (bits - 1)

    def merge(self, group: Group, other: Row) -> None:
        for name in self._names:
            total = (group[name] or 0) + (other[name] or 0)
            if not -self._half <= total < self._half:
                total = (total + self._half) % (2 * self._half) - self._half
            group[name] = total


class _Sum(_Added):
    def __init__(self, one: Sum) -> None:
        super().__init__([one.name], 128)
        self._name, self._column = one.name, one.column
        self.empty: Row = {one.name: 0}

    def contribution(self, event: Row) -> Row:
        return {self._name: event[self._column]}


class _Count(_Added):
    def __init__(self, one: Count) -> None:
        super().__init__([one.name], 64)
        self._name = one.name
        self.empty: Row = {one.name: 0}

    def contribution(self, event: Row) -> Row:
        return {self._name: event["sign"]}


class _LateStats:
    def __init__(self, one: LateStats) -> None:
        self.empty: Row = {"late_count": 0, "late_amount": 0, "restated_at": None}
        self._column, self._recorded_at = one.column, one.recorded_at
        self._count, self._amount = _Added(["late_count"], 64), _Added(["late_amount"], 128)

    def contribution(self, event: Row) -> Row:
        if not event["is_late"]:
            return self.empty
        return {
            "late_count": 1,
            "late_amount": event[self._column],
            "restated_at": event[self._recorded_at],
        }

    def merge(self, group: Group, other: Row) -> None:
        self._count.merge(group, other)
        self._amount.merge(group, other)
        restated_at, known = other["restated_at"], group["restated_at"]
        if restated_at is not None and (known is None or restated_at > known):
            group["restated_at"] = restated_at


class _ArgMax:
    def __init__(self, one: ArgMax) -> None:
        self._reads = one.reads
        self._names = [field.name for field in one.fields]
        self._is_text = one.column.is_text
        self._exceeds = _exceeds([*self._names[1:], self._names[0]])
        self.empty: Row = dict.fromkeys(self._names)

    def contribution(self, event: Row) -> Row:
        values = {name: event[read] for name, read in zip(self._names, self._reads, strict=True)}
        if self._is_text:
            values[self._names[0]] = _shown(values[self._names[0]])
        return values

    def merge(self, group: Group, other: Row) -> None:
        if self._exceeds(other, group):
            for name in self._names:
                group[name] = other[name]


class _NestedGroups:
    def __init__(self, one: NestedGroups) -> None:
        self._name = one.name
        self._count = one.count
        self._reads = one.reads
        self._shown = [field.name for field in one.latest if field.is_text]
        self._by = [field.name for field in one.by]
        self._kept = [field.name for field in (*one.order, *one.latest)]
        self._added = _Added(one.added, 64)
        self._by_rank, self._exceeds = _rank(self._by), _exceeds(self._kept)
        self.empty: Row = {one.name: None}

    def contribution(self, event: Row) -> Row:
        item = {name: event[name] for name in self._reads}
        if self._count is not None:
            item[self._count] = event["sign"]
        for name in self._shown:
            item[name] = _shown(item[name])
        return {self._name: (item,)}

    def merge(self, group: Group, other: Row) -> None:
        if other[self._name] is None:
            return
        items = group[self._name]
        if items is None:
            items = group[self._name] = {}
        for item in other[self._name]:
            key = tuple(item[name] for name in self._by)
            known = items.get(key)
            if known is None:
                items[key] = dict(item)
                continue
            self._added.merge(known, item)
            if self._exceeds(item, known):
                for name in self._kept:
                    known[name] = item[name]

    def finish(self, group: Group) -> None:
        """The dict becomes the list that is encoded, in order of its keys."""
        if group[self._name] is not None:
            group[self._name] = sorted(group[self._name].values(), key=self._by_rank)


def _interpreted(one: Aggregate) -> RowAggregate:
    match one:
        case Sum():
            return _Sum(one)
        case Count():
            return _Count(one)
        case LateStats():
            return _LateStats(one)
        case ArgMax():
            return _ArgMax(one)
        case NestedGroups():
            return _NestedGroups(one)
        case _:
            assert_never(one)


def _rank(names: Sequence[str]) -> Callable[[Row], tuple[Any, ...]]:
    """By these fields; null is the least, as in columns. Texts are compared by code points, which is by UTF-8."""
    return lambda row: tuple([(row[name] is not None, row[name]) for name in names])


def _exceeds(names: Sequence[str]) -> Callable[[Row, Row], bool]:
    """Whether the one row is greater by these fields than the other."""
    # Faster than ranks, and enough where nothing is null.
    values, rank = itemgetter(*names), _rank(names)

    def exceeds(one: Row, other: Row) -> bool:
        try:
            return bool(values(one) > values(other))
        except TypeError:
            return rank(one) > rank(other)

    return exceeds


def _shown(text: str | None) -> str | None:
    return None if text is None else text[:MOST_CHARACTERS].replace("\0", "\ufffd")
