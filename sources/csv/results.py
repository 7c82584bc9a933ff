"""Results of ingesting, checking and retracting files, for the command line and Dagster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from contracts import datasets
from contracts.topics import SALES_EVENTS
from observability.progress_report import ProgressReport

# How many rows a preview shows.
PREVIEW_ROWS = 5
# taken: all its rows are done. copy: its content was taken before. rejected: no CSV of sales. changing: it is written
# to, and waits. unfinished: its end is not there yet, and it waits. refused: it could not be opened, moved or removed,
# and waits. lost: the copy was removed before its end. written_after: it was written to after it was taken, and waits
# again. retracted: an interrupted retraction, finished now.
Outcome = Literal[
    "taken", "copy", "rejected", "changing", "unfinished", "refused", "lost", "written_after", "retracted"
]


@dataclass(frozen=True)
class Counts:
    """Every row is accepted, a duplicate, a reversal or rejected; a correction is one of the accepted.

    `amount` is what the rows add to the totals, by currency, in ten-thousandths.
    """

    rows: int = 0
    accepted: int = 0
    duplicates: int = 0
    corrections: int = 0
    reversals: int = 0
    rejected: int = 0
    amount: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Counts) -> Counts:
        amount = dict(self.amount)
        for currency, value in other.amount.items():
            amount[currency] = amount.get(currency, 0) + value
        return Counts(
            self.rows + other.rows,
            self.accepted + other.accepted,
            self.duplicates + other.duplicates,
            self.corrections + other.corrections,
            self.reversals + other.reversals,
            self.rejected + other.rejected,
            amount,
        )

    @property
    def is_in_vain(self) -> bool:
        """There are rows, and none of them counts."""
        return 0 < self.rows == self.rejected

    @property
    def amounts(self) -> dict[str, Decimal]:
        """By currency, four decimals."""
        return {currency: Decimal(value).scaleb(-4) for currency, value in sorted(self.amount.items())}

    @property
    def report(self) -> ProgressReport:
        """The progress report of a run that has written this."""
        # A correction is a reversal and a sale.
        events = self.accepted + self.corrections + self.reversals
        counts = {
            "rows": self.rows,
            "events": events,
            "duplicates": self.duplicates,
            "dead": self.rejected,
        }
        return ProgressReport(counts={"csv": counts}, rows={datasets.topic(SALES_EVENTS): events})


@dataclass(frozen=True)
class FileResult:
    """One file. `counts` are the file's, whichever runs took it; `seconds` are this run's."""

    name: str
    outcome: Outcome
    sha256: str = ""
    reason: str = ""
    counts: Counts = Counts()
    seconds: float = 0.0
    ignored_columns: tuple[str, ...] = ()
    # Other files of the same modification time that differ in so many sales: which of them counts is chance.
    disagrees: Mapping[str, int] = field(default_factory=dict)

    @property
    def refused_share(self) -> float:
        """Of its rows."""
        return self.counts.rejected / self.counts.rows if self.counts.rows else 0.0


@dataclass(frozen=True)
class Taking:
    """One run. `counts` are this run's; `preview` are the first sales that it accepted."""

    files: tuple[FileResult, ...]
    counts: Counts
    seconds: float
    preview: tuple[Mapping[str, Any], ...] = ()

    @property
    def rate(self) -> float:
        """Rows a second, everything included."""
        return self.counts.rows / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Refusal:
    """A row that would be refused."""

    line: int
    reason: str


@dataclass(frozen=True)
class Check:
    """What would become of a file. `refusals` are the first ones; `counts.rejected` is the number of all.

    `reasons`: how many rows would be refused for which reason. `unrecognised`, `unfinished`: why the inbox would leave
    it where it lies, or for how long.
    """

    name: str
    counts: Counts
    refusals: tuple[Refusal, ...] = ()
    reason: str = ""
    ignored_columns: tuple[str, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)
    unrecognised: str = ""
    unfinished: str = ""

    @property
    def is_clean(self) -> bool:
        return not self.reason and not self.unrecognised and not self.counts.rejected


@dataclass(frozen=True)
class Retraction:
    """A file that was taken back. `left`: its sales that do not count any more, because they were corrected since."""

    name: str
    sha256: str
    taken_back: int
    left: int
    amount: Mapping[str, Decimal]
