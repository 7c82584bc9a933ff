"""One call in a process of its own, which a failpoint may end."""

from __future__ import annotations

import json
import sys

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from contracts.settings import KafkaSettings
from streaming.replay import difference, promotion, retirement
from tests.support.results import BarrierHold

# Few rows are many batches.
retirement.BATCH_ROWS = 10


def main(call: str, pipeline: str, number: int, results_url: str, fingerprint: str) -> None:
    kafka, results = KafkaSettings(), create_engine(results_url, poolclass=NullPool)
    if call == "diff":
        difference.take(kafka, results, pipeline, number, hold=BarrierHold())
    elif call == "promote":
        promotion.promote(
            kafka,
            results,
            pipeline,
            number,
            fingerprint=fingerprint,
            approved_by="a test",
            hold=BarrierHold(),
        )
    elif call == "rollback":
        promotion.rollback(
            kafka, results, pipeline, number, reason="a test", approved_by="a test", hold=BarrierHold()
        )
    else:
        retirement.retire(kafka, results, pipeline, number)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
