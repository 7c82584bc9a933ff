"""A registry that is away is tried again; one that refuses needs a person. Both are one line."""

from __future__ import annotations

import httpx2
import pytest
from confluent_kafka.schema_registry.error import SchemaRegistryError

from kafka_client.errors import Refused, Retriable
from sources.position_store import registry_answers


@pytest.mark.parametrize(
    "error",
    [
        httpx2.ConnectError("connection refused"),
        SchemaRegistryError(503, 50301, "starting"),
        SchemaRegistryError(-1, -1, "no JSON"),
    ],
)
def test_a_registry_that_is_away_interrupts_and_is_waited_for(error: Exception) -> None:
    sentence = "the schema registry does not answer .*: start it; this goes on by itself"
    with pytest.raises(Retriable, match=sentence) as raised, registry_answers():
        raise error
    assert raised.value.on == "registry"


@pytest.mark.parametrize("status", [401, 403, 404, 409, 422])
def test_a_registry_that_refuses_needs_a_person(status: int) -> None:
    with pytest.raises(Refused, match="ELECTRORED_SCHEMA_REGISTRY_URL") as raised, registry_answers():
        raise SchemaRegistryError(status, status * 100, "not\nlike this")
    assert "\n" not in str(raised.value)
    assert "not like this" in str(raised.value)
