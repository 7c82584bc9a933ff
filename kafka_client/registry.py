"""Avro values and the schema registry: five bytes of header, then the record."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping
from typing import Any, Protocol, cast

import fastavro
import httpx2
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from contracts.schemas import load
from contracts.settings import KafkaSettings
from contracts.topics import PUBLIC
from kafka_client import apicurio
from kafka_client.writer_schemas import LostSchema, Undecodable, UnknownSchema, one_line, parse

MAGIC = b"\x00"
HEADER_BYTES = 5
NOT_FOUND = 404
# HTTP statuses for an id that is unknown or invalid.
_NO_SUCH_ID = (400, NOT_FOUND, 410, 422)
# A call that takes longer has failed, and is retried once.
ANSWER_SECONDS = 5.0
# The registry does not answer: its client raises errors of its HTTP library.
Unreachable = httpx2.HTTPError


def header(schema_id: int) -> bytes:
    """Prefix of every value: the magic byte and the writer schema's id."""
    return MAGIC + schema_id.to_bytes(4, "big")


def schema_id_of(value: bytes) -> int:
    """The writer schema's id. Raises Undecodable if the value does not begin with a registry header."""
    if len(value) < HEADER_BYTES or value[:1] != MAGIC:
        raise Undecodable("no registry header")
    return int.from_bytes(value[1:HEADER_BYTES], "big")


class Schemas(Protocol):
    """Writer schemas by id."""

    def schema(self, schema_id: int) -> Any:
        """The writer schema as parsed JSON. Raises Undecodable for an id that is unknown or no Avro schema."""


class Registry:
    """The registry; lookups are cached for the life of the process."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._url = settings.schema_registry_url
        self._client = SchemaRegistryClient(_configuration(settings))
        self._schemas: dict[int, Any] = {}
        # Ids of schemas that cannot be read, with the reason.
        self._foreign: dict[int, Undecodable] = {}

    def register(self, subject: str, schema: Any) -> int:
        """Register the schema under the subject, if it is not yet; returns its id."""
        return int(self._client.register_schema(subject, Schema(json.dumps(schema), "AVRO")))

    def register_public(self) -> None:
        """Register the schemas of all public topics, each held to its topic's compatibility from now on."""
        known = set(self._client.get_subjects())
        for topic in PUBLIC:
            # Before, because the rule may have changed; a registry may refuse a rule for an unknown subject.
            if topic.subject in known:
                self._client.set_compatibility(topic.subject, topic.compatibility)
            self.register(topic.subject, load(topic.schema))
            self._client.set_compatibility(topic.subject, topic.compatibility)

    def id_of(self, subject: str, schema: Any) -> int | None:
        """The id that the schema has under the subject, if it is registered there."""
        try:
            return self._client.lookup_schema(subject, Schema(json.dumps(schema), "AVRO")).schema_id
        except SchemaRegistryError as error:
            if error.http_status_code == NOT_FOUND:
                return None
            raise

    def forget(self, subject: str) -> bool:
        """Delete the subject for good; whether anything was left of it.

        A schema that another subject has too keeps its id.
        """
        # A hard delete needs a soft delete before it, maybe of an earlier attempt.
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
        """The writer schema as parsed JSON.

        Raises Undecodable for an id that is unknown or no Avro schema, and the client's error if it gets no answer.
        """
        if schema_id in self._foreign:
            raise self._foreign[schema_id]
        if schema_id not in self._schemas:
            try:
                schema = self._client.get_schema(schema_id)
            except SchemaRegistryError as error:
                if error.http_status_code in _NO_SUCH_ID:
                    raise UnknownSchema(schema_id) from error
                raise
            try:
                self._schemas[schema_id] = parse(
                    schema_id, cast(str, schema.schema_str), schema.schema_type or "AVRO"
                )
            except Undecodable as error:
                self._foreign[schema_id] = error
                raise
        return self._schemas[schema_id]

    def put_back(self, schemas: Mapping[str, Collection[tuple[int, str]]]) -> None:
        """Restore schemas of subjects under all ids that they had; an id that is in use stays as it is.

        By import, because the compatible API accepts no id. Raises LookupError where the registry is no Apicurio.
        """
        base, separator, _ = self._url.partition("/apis/")
        if not separator:
            raise LookupError(f"{self._url} is no Apicurio's address (…/apis/ccompat/v7)")
        texts = [(subject, text) for subject, ids in schemas.items() for _, text in ids]
        known = {text for subject, text in texts if self.id_of(subject, json.loads(text)) is not None}
        answer = self._client._rest_client.session.post(
            base + apicurio.IMPORT,
            params={"requireEmptyRegistry": "false"},
            content=apicurio.archive(schemas, known),
            headers={"Content-Type": "application/zip"},
        )
        answer.raise_for_status()

    def codec(self, subject: str, schema: Any) -> Codec:
        """Encoder and decoder of single values of a subject; registers the schema."""
        return Codec(self, self.register(subject, schema), schema)

    def reader(self, schema: Any) -> Reader:
        """Decoder of single values; registers nothing, and looks an id up only when a value has it."""
        return Reader(self, schema)


def reason(error: BaseException | None) -> str:
    """The registry's error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _configuration(settings: KafkaSettings) -> dict[str, Any]:
    # Without a limit the client would wait for ever for a server that accepts a connection and sends nothing.
    config: dict[str, Any] = {
        "url": settings.schema_registry_url,
        "timeout": ANSWER_SECONDS,
        "max.retries": 1,
    }
    if settings.schema_registry_ca_file is not None:
        config["ssl.ca.location"] = settings.schema_registry_ca_file
    if settings.schema_registry_username is not None:
        password = settings.schema_registry_password
        secret = password.get_secret_value() if password else ""
        config["basic.auth.user.info"] = f"{settings.schema_registry_username}:{secret}"
    return config


class Reader:
    """Decodes single values, registry header included; columns of many values are `streaming.engine.blocks`."""

    def __init__(self, registry: Schemas, schema: Any) -> None:
        self._registry = registry
        self._parsed = fastavro.parse_schema(schema)
        self._name = schema["name"] if isinstance(schema, dict) else "a record of ours"
        self._writers: dict[int, Any] = {}

    def decode(self, value: bytes) -> Any:
        """The record in the reader's schema; branches of a union of records come as `(name, dict)`.

        Raises Undecodable for a value that is no such record, and the registry client's error if it gets no answer.
        """
        writer_id = schema_id_of(value)
        try:
            writer = self._writers.get(writer_id) or self._looked_up(writer_id)
            return _read(value, writer, self._parsed, writer_id)
        except LostSchema:
            raise
        except Undecodable as error:
            if self._is_own(value, writer_id):
                raise LostSchema(writer_id, self._name) from error
            raise

    def own(self, value: bytes) -> Any:
        """The record decoded with the reader's schema, whatever its id. Raises Undecodable if it is none."""
        return _read(value, self._parsed, None, schema_id_of(value))

    def _is_own(self, value: bytes, writer_id: int) -> bool:
        """Whether it is a record of the reader's schema to the last byte, and not one of its id's schema."""
        return is_record(value, self._parsed) and not (
            writer_id in self._writers and is_record(value, self._writers[writer_id])
        )

    def _looked_up(self, writer_id: int) -> Any:
        schema = self._registry.schema(writer_id)
        try:
            self._writers[writer_id] = fastavro.parse_schema(schema)
        except MemoryError:
            raise
        except Exception as error:
            raise Undecodable(f"schema id {writer_id} cannot be read: {one_line(error)}") from error
        return self._writers[writer_id]


class Codec(Reader):
    """A reader that also encodes, under the id of its schema."""

    def __init__(self, registry: Schemas, schema_id: int, schema: Any) -> None:
        super().__init__(registry, schema)
        self.schema_id = schema_id
        self._header = header(schema_id)
        self._writers[schema_id] = self._parsed

    def encode(self, record: Any) -> bytes:
        """The record (a dict; `(name, dict)` for a branch of a union) as header and Avro."""
        out = io.BytesIO(self._header)
        out.seek(HEADER_BYTES)
        fastavro.schemaless_writer(out, self._parsed, record)
        return out.getvalue()


def is_record(value: bytes, parsed: Any) -> bool:
    """Whether a record of the schema follows the header, and nothing else."""
    try:
        _read(value, parsed, None, schema_id_of(value))
    except Undecodable:
        return False
    return True


def _read(value: bytes, writer: Any, reader: Any, writer_id: int) -> Any:
    body = io.BytesIO(value)
    body.seek(HEADER_BYTES)
    try:
        record = fastavro.schemaless_reader(body, writer, reader, return_record_name=True)
    except MemoryError:
        raise
    # fastavro raises many types of errors for bytes that are no such record.
    except Exception as error:
        raise Undecodable(f"no record of schema id {writer_id}: {one_line(error)}") from error
    if body.tell() != len(value):
        raise Undecodable(f"no record of schema id {writer_id}: it has {len(value) - body.tell()} bytes more")
    return record
