"""What a source's transactions came to is counted from the first one on."""

from __future__ import annotations

from prometheus_client import REGISTRY

from contracts.settings import KafkaSettings
from contracts.topics import SALES_EVENTS, SOURCE_POSITIONS
from sources.ledger import Ledger


def test_every_outcome_is_0_before_there_was_a_transaction() -> None:
    settings = KafkaSettings(kafka_bootstrap="127.0.0.1:1", schema_registry_url="http://127.0.0.1:1")
    Ledger(settings, "till", "sources.till", SOURCE_POSITIONS, SALES_EVENTS)
    counted = {
        outcome: REGISTRY.get_sample_value(
            "electrored_transactions_total", {"flow": "till", "outcome": outcome}
        )
        for outcome in ("committed", "fenced", "refused", "unknown")
    }
    assert counted == dict.fromkeys(counted, 0.0)
