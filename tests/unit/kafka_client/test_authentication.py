"""Client certificates and OAUTHBEARER reach librdkafka whole, or the settings are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from confluent_kafka import KafkaException
from cryptography.hazmat.primitives import serialization

from contracts.settings import KafkaSettings, from_environment
from kafka_client.clients import admin, client_config

PASSWORD = "open sesame"
CERTIFICATE = {
    "ELECTRORED_KAFKA_SSL_CERTIFICATE_FILE": "/client.pem",
    "ELECTRORED_KAFKA_SSL_KEY_FILE": "/client.key",
}
OAUTH = {
    "ELECTRORED_KAFKA_OAUTH_TOKEN_URL": "https://identity.example.com/token",
    "ELECTRORED_KAFKA_OAUTH_CLIENT_ID": "electrored-worker",
    "ELECTRORED_KAFKA_OAUTH_CLIENT_SECRET": "s3cr3t",
}
SSL = {"ELECTRORED_KAFKA_SECURITY_PROTOCOL": "SSL"}
BEARER = {"ELECTRORED_KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "ELECTRORED_KAFKA_SASL_MECHANISM": "OAUTHBEARER"}


@pytest.fixture(autouse=True)
def _reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELECTRORED_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("ELECTRORED_SCHEMA_REGISTRY_URL", "http://127.0.0.1:1")


def settings(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> KafkaSettings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return from_environment(KafkaSettings)


def test_without_them_neither_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    config = client_config(settings(monkeypatch, {}))
    assert not [name for name in config if name.startswith(("ssl.", "sasl."))]


def test_a_client_certificate_is_read_by_librdkafka(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("electrored-worker.example.com")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSWORD.encode()),
    )
    (tmp_path / "client.key").write_bytes(encrypted)
    files = {"CA": "ca.pem", "CERTIFICATE": "client.pem", "KEY": "client.key"}
    variables = {f"ELECTRORED_KAFKA_SSL_{name}_FILE": str(tmp_path / file) for name, file in files.items()}
    variables |= SSL | {"ELECTRORED_KAFKA_SSL_KEY_PASSWORD": PASSWORD}
    kafka = settings(monkeypatch, variables)
    config = client_config(kafka)
    assert config["ssl.certificate.location"] == str(tmp_path / "client.pem")
    assert config["ssl.key.location"] == str(tmp_path / "client.key")
    assert config["ssl.key.password"] == PASSWORD
    admin(kafka)
    with pytest.raises(KafkaException, match=r"ssl\.key\.location"):
        admin(settings(monkeypatch, {"ELECTRORED_KAFKA_SSL_KEY_PASSWORD": "another"}))


def test_tokens_come_from_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = {"ELECTRORED_KAFKA_OAUTH_SCOPE": "kafka"}
    config = client_config(settings(monkeypatch, BEARER | OAUTH | scope))
    assert {name: value for name, value in config.items() if name.startswith("sasl.")} == {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": "https://identity.example.com/token",
        "sasl.oauthbearer.client.id": "electrored-worker",
        "sasl.oauthbearer.client.secret": "s3cr3t",
        "sasl.oauthbearer.scope": "kafka",
    }


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            SSL | {"ELECTRORED_KAFKA_SSL_CERTIFICATE_FILE": "/client.pem"},
            "a client certificate needs ELECTRORED_KAFKA_SSL_KEY_FILE too",
        ),
        (
            SSL | {"ELECTRORED_KAFKA_SSL_KEY_PASSWORD": PASSWORD},
            "a client certificate needs ELECTRORED_KAFKA_SSL_CERTIFICATE_FILE and ELECTRORED_KAFKA_SSL_KEY_FILE too",
        ),
        (
            CERTIFICATE,
            "a client certificate needs ELECTRORED_KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL, which is PLAINTEXT",
        ),
        (
            BEARER,
            "OAUTHBEARER needs ELECTRORED_KAFKA_OAUTH_TOKEN_URL and ELECTRORED_KAFKA_OAUTH_CLIENT_ID and "
            "ELECTRORED_KAFKA_OAUTH_CLIENT_SECRET too",
        ),
        (
            BEARER | OAUTH | {"ELECTRORED_KAFKA_SECURITY_PROTOCOL": "SSL"},
            "OAUTHBEARER needs ELECTRORED_KAFKA_SECURITY_PROTOCOL=SASL_SSL, which is SSL",
        ),
        (
            {"ELECTRORED_KAFKA_OAUTH_SCOPE": "kafka"},
            "ELECTRORED_KAFKA_OAUTH_SCOPE needs ELECTRORED_KAFKA_SASL_MECHANISM=OAUTHBEARER",
        ),
    ],
)
def test_a_half_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        settings(monkeypatch, variables)
    (line,) = str(ended.value).splitlines()
    assert message in line
    assert PASSWORD not in line
    assert OAUTH["ELECTRORED_KAFKA_OAUTH_CLIENT_SECRET"] not in line
