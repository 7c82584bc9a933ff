"""Avro values and the schema registry: five bytes of header, then the record."""

from __future__ import annotations

import io
import json
from typing import Any, Protocol, cast

import fastavro
import httpx2
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import PUBLIC

MAGIC = b"\x00"
HEADER_BYTES = 5
NOT_FOUND = 404
# The registry does not answer at all: what its client raises is of the HTTP client that it chose.
Unreachable = httpx2.HTTPError


def header(schema_id: int) -> bytes:
    """What stands before every value: the magic byte and the writer schema's id."""
    return MAGIC + schema_id.to_bytes(4, "big")


def schema_id_of(value: bytes) -> int:
    """The writer schema's id. Raises ValueError if the value does not begin with a registry header."""
    if len(value) < HEADER_BYTES or value[:1] != MAGIC:
        raise ValueError("no registry header")
    return int.from_bytes(value[1:HEADER_BYTES], "big")


class Schemas(Protocol):
    """Where a writer schema is found by its id."""

    def schema(self, schema_id: int) -> Any: ...


class Registry:
    """The registry, with what was looked up kept for the life of the process."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._client = SchemaRegistryClient(_configuration(settings))
        self._schemas: dict[int, Any] = {}

    def register(self, subject: str, schema: Any) -> int:
        """Register the schema (or find it) under the subject and give its id."""
        return int(self._client.register_schema(subject, Schema(json.dumps(schema), "AVRO")))

    def register_public(self) -> None:
        """Register the schemas of all public topics, each held to its topic's compatibility from now on."""
        known = set(self._client.get_subjects())
        for topic in PUBLIC:
            # Before, because the rule may have changed; and a registry may know no rule for what it does not know.
            if topic.subject in known:
                self._client.set_compatibility(topic.subject, topic.compatibility)
            self.register(topic.subject, load(topic.schema))
            self._client.set_compatibility(topic.subject, topic.compatibility)

    def forget(self, subject: str) -> bool:
        """Delete the subject for good; gives whether there was anything left of it.

        A schema that another subject has too keeps its id.
        """
        # A registry deletes for good only what was deleted softly, maybe by an attempt that ended there.
        softly = self._is_deleted(subject, permanent=False)
        return self._is_deleted(subject, permanent=True) or softly

    def _is_deleted(self, subject: str, *, permanent: bool) -> bool:
        try:
            self._client.delete_subject(subject, permanent=permanent)
        except SchemaRegistryError as error:
            if error.http_status_code == NOT_FOUND:
                return False
            raise
        return True

    def schema(self, schema_id: int) -> Any:
        """The writer schema as parsed JSON. Raises SchemaRegistryError for an unknown id."""
        if schema_id not in self._schemas:
            self._schemas[schema_id] = json.loads(cast(str, self._client.get_schema(schema_id).schema_str))
        return self._schemas[schema_id]

    def codec(self, subject: str, schema: Any) -> Codec:
        """Encoder and decoder of single values of a subject; registers the schema."""
        return Codec(self, self.register(subject, schema), schema)


def _configuration(settings: KafkaSettings) -> dict[str, Any]:
    config: dict[str, Any] = {"url": settings.schema_registry_url}
    if settings.schema_registry_ca_file is not None:
        config["ssl.ca.location"] = settings.schema_registry_ca_file
    if settings.schema_registry_username is not None:
        password = settings.schema_registry_password
        secret = password.get_secret_value() if password else ""
        config["basic.auth.user.info"] = f"{settings.schema_registry_username}:{secret}"
    return config


class Codec:
    """Single values of one subject, registry header included; columns of many values are `streaming.engine.blocks`."""

    def __init__(self, registry: Schemas, schema_id: int, schema: Any) -> None:
        self.schema_id = schema_id
        self._registry = registry
        self._header = header(schema_id)
        self._parsed = fastavro.parse_schema(schema)
        self._writers: dict[int, Any] = {schema_id: self._parsed}

    def encode(self, record: Any) -> bytes:
        """The record (a dict; `(name, dict)` for a branch of a union) as header and Avro."""
        out = io.BytesIO(self._header)
        out.seek(HEADER_BYTES)
        fastavro.schemaless_writer(out, self._parsed, record)
        return out.getvalue()

    def decode(self, value: bytes) -> Any:
        """The record in the reader's schema; branches of a union of records come as `(name, dict)`.

        Raises ValueError without a header, and what fastavro raises for bytes that are no such record.
        """
        writer_id = schema_id_of(value)
        if writer_id not in self._writers:
            self._writers[writer_id] = fastavro.parse_schema(self._registry.schema(writer_id))
        body = io.BytesIO(value)
        body.seek(HEADER_BYTES)
        return fastavro.schemaless_reader(
            body, self._writers[writer_id], self._parsed, return_record_name=True
        )
