"""What a worker reports of its run: the progress of its loops, sampled now and then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from contracts import datasets
from contracts.topics import DEAD_LETTERS, GenerationTopics
from streaming.engine import loop_status
from streaming.engine.loop_status import LoopStatus, report
from streaming.engine.progress import Progress

NAMES = GenerationTopics("top-sales-by-city", 1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def loop(progress: dict[int, Progress], **written: int) -> Any:
    step = SimpleNamespace(progress=progress.__getitem__)
    return SimpleNamespace(step=step, ready=frozenset(progress), written=written)


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_status, "SAMPLE_SECONDS", 0.0)


def test_a_worker_reports_its_watermark_counts_checkpoints_and_what_it_wrote() -> None:
    combine, merge = LoopStatus("combine", 1), LoopStatus("merge", 2)
    read = {0: Progress(7, events=5, late=1, dead=2), 1: Progress(3, events=2)}
    combine.punctuate(loop(read, **{NAMES.partials.name: 4, DEAD_LETTERS.name: 2}))
    later = NOON + timedelta(minutes=1)
    merge.punctuate(loop({0: Progress(4, watermarks={"0": NOON, "1": later})}, **{NAMES.state.name: 3}))
    progress = report([combine, merge])
    assert progress.watermark == NOON
    assert progress.counts["combine"] == {"events": 7, "duplicates": 0, "late": 1, "dead": 2, "future": 0}
    assert progress.checkpoints == {"combine": {0: 7, 1: 3}, "merge": {0: 4}}
    assert progress.rows == {
        datasets.topic(NAMES.partials): 4,
        datasets.topic(DEAD_LETTERS): 2,
        datasets.topic(NAMES.state): 3,
    }


def test_dead_letters_of_all_inputs_are_one_number() -> None:
    sales, payments = LoopStatus("combine-sales", 1), LoopStatus("combine-payments", 1)
    for one in (sales, payments):
        one.punctuate(loop({}, **{DEAD_LETTERS.name: 2}))
    assert report([sales, payments]).rows == {datasets.topic(DEAD_LETTERS): 4}


def test_there_is_no_watermark_before_every_input_has_one() -> None:
    merge = LoopStatus("merge", 2)
    merge.punctuate(loop({0: Progress(4, watermarks={"0": NOON})}))
    assert report([merge]).watermark is None
