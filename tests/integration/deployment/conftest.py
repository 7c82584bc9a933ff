"""Servers with TLS only and authentication: Kafka with rights, PostgreSQL, the registry."""

from __future__ import annotations

import shutil
import signal
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from kafka_client.acls import GRANTS, USER_PREFIX
from stack import databases
from stack.embedded import Embedded, child, until_ready
from stack.ports import Ports, answers
from tests.support import tls_endpoints as endpoints
from tests.support.secured import ADMIN, REGISTRY_USER, Secured, SecureKafka


@pytest.fixture(scope="module")
def secured(stack: Embedded) -> Iterator[Secured]:
    """A broker of its own; PostgreSQL and the registry are the shared ones, behind TLS proxies."""
    folder = Path(tempfile.mkdtemp(prefix="electrored-test-"))
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        certificate = _certify(folder)
        ports = Ports.free()
        users = {name: uuid4().hex for name in (ADMIN, *(f"{USER_PREFIX}{process}" for process in GRANTS))}
        kafka = SecureKafka(folder / "kafka", ports.kafka, ports.kafka_controller, pem=folder, users=users)
        kafka.finish(kafka.prepare())
        log = folder / "kafka.log"
        broker = cleanup.enter_context(
            child(kafka.command, kafka.environment, log, stop=signal.SIGTERM, user=None)
        )
        suffix = uuid4().hex[:12]
        sales = databases.create_database(stack.postgres(), f"sales_{suffix}")
        cleanup.callback(databases.drop_database, stack.postgres(), f"sales_{suffix}")
        databases.provision_sales(sales)
        # Not a copy of the migrated one: `setup` shall find it empty.
        results = databases.create_database(stack.postgres(), f"results_{suffix}", owner=databases.WRITER)
        databases.provision_results(results)
        cleanup.callback(databases.drop_database, stack.postgres(), f"results_{suffix}")
        dagster = databases.create_database(
            stack.postgres(), f"dagster_{suffix}", owner=databases.DAGSTER_ROLE
        )
        databases.provision_dagster(dagster)
        cleanup.callback(databases.drop_database, stack.postgres(), f"dagster_{suffix}")
        password = uuid4().hex
        made = Secured(
            stack,
            folder,
            kafka,
            cleanup.enter_context(endpoints.postgres(stack.server.port, certificate)),
            cleanup.enter_context(
                endpoints.registry(stack.registry_url, certificate, REGISTRY_USER, password)
            ),
            password,
            f"sales_{suffix}",
            f"results_{suffix}",
            f"dagster_{suffix}",
        )
        until_ready("kafka", lambda: answers(ports.kafka), broker, folder)
        yield made


def _certify(folder: Path) -> ssl.SSLContext:
    """An authority of the test's own and one certificate for all its servers."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA)
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    # Java reads no other form of a key.
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
    (folder / "server.pem").write_bytes(pem + chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context
