"""Logs: one line per event, for people or machines, with the secrets masked wherever they hide."""

from __future__ import annotations

import io
import json
import logging
import re
from typing import Any, Literal

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from contracts import settings
from contracts.settings import LogSettings
from observability import logs
from tests.support.python_process import run_python

URL = "postgresql+psycopg2://electrored_capture:s3cr3t-pa@ss@127.0.0.1:5432/sales"


pytestmark = pytest.mark.usefixtures("logging_as_before")


def configured(
    log_format: Literal["console", "json"], log_level: Literal["DEBUG", "INFO"] = "INFO"
) -> io.StringIO:
    out = io.StringIO()
    logs.configure("capture", LogSettings(log_format=log_format, log_level=log_level), out)
    return out


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_lines_carry_process_level_time_and_fields() -> None:
    out = configured("json")
    logs.get("sources.postgres").info("slot created", slot="electrored_sales", lsn=7)
    (line,) = lines(out)
    assert line.pop("at").endswith("Z")
    assert line == {
        "process": "capture", "level": "info", "event": "slot created", "logger": "sources.postgres",
        "slot": "electrored_sales", "lsn": 7,
    }  # fmt: skip


def test_console_lines_are_for_people() -> None:
    out = configured("console")
    logs.get("x").warning("broker away", attempt=3)
    assert "broker away" in out.getvalue()
    assert "attempt=3" in out.getvalue()
    assert "\x1b" not in out.getvalue(), "colours only on a terminal"


def test_a_level_below_the_setting_is_silent() -> None:
    out = configured("json")
    logs.get("x").debug("detail")
    assert out.getvalue() == ""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_secrets_are_masked_in_every_place(log_format: Literal["console", "json"]) -> None:
    out = configured(log_format)
    log = logs.get("x")
    log.info(f"connecting to {URL}")
    nested = {"token": "s3cr3t-pa@ss", "urls": [URL]}
    log.info("a", url=URL, kafka_sasl_password="s3cr3t-pa@ss", nested=nested)
    log.info("b", dsn="host=127.0.0.1 password='s3cr3t-pa@ss' user=x", settings=SecretStr("s3cr3t-pa@ss"))
    log.info("c", config="{'sasl.password': 's3cr3t-pa@ss', 'client.id': 'x'}")
    logging.getLogger("sqlalchemy").warning("cannot reach %s", URL)
    try:
        raise RuntimeError(f"no route to {URL}")
    except RuntimeError:
        log.exception("d")
    assert "s3cr3t" not in out.getvalue()
    assert "pa@ss" not in out.getvalue()
    assert "electrored_capture" in out.getvalue(), "who connects stays readable"
    assert "127.0.0.1:5432/sales" in out.getvalue(), "where to stays readable"


# Each with every secret below; what is in brackets stays readable.
HIDING = [
    ("postgresql://[electrored]:{}@[db:5432/results]", "url"),
    ("cannot reach kafka+ssl://:{}@[broker:9092], [attempt 3]", "url"),
    ("postgresql://[me@server]:{}@[db/sales?sslmode=require]", "url"),
    ("[host=db user=x] password={} [dbname=sales]", "plain"),
    ("[PGPASSWORD]={} [psql]", "plain"),
    ("[GET /a]?access_token={} [200]", "plain"),
    ("[grant_type=x&]client_secret={} [refused]", "plain"),
    ("[api_key]={} [refused]", "plain"),
    ("[X-Api-Key]: {} [refused]", "plain"),
    ("[OPENLINEAGE_API_KEY]={}", "plain"),
    ("[aws_secret_access_key] = {} [x]", "plain"),
    ("[Authorization]: Bearer {} [was refused]", "plain"),
    ("[authorization]: Basic {} [was refused]", "plain"),
    ("[sent Bearer] {} [to a server]", "plain"),
    ("password='{} and more' [dbname=sales]", "words"),
    ("{'sasl.password': '{}', ['client.id': 'x']}", "words"),
    ('{"refresh_token": "{}", ["n": 1]}', "words"),
    (r'"{\"token\": \"{}\", [\"n\": 1]}"', "words"),
    ("[(b'Authorization'], b'Bearer {}'), [(b'Accept', b'x')]", "words"),
    ("[('private_key'], '{}'), [('n', 1)]", "words"),
]
SECRETS = {
    "plain": ["s3cr3t", "s3cr3t/4dd", "s3cr3t,4dd;4dd}4dd&4dd", "s3cr3t@4dd:4dd/+=4dd", "4dd'4dd\"s3cr3t"],
    "words": ["s3cr3t", "s3cr3t/4dd,4dd;4dd}4dd&4dd=", "s3cr3t 4dd 4dd"],
    "url": [
        "s3cr3t",
        "s3cr3t/4dd",
        "/s3cr3t//4dd",
        "s3cr3t@4dd/4dd@4dd",
        "s3cr3t?4dd#4dd:4dd,4dd",
        "a://4dd",
    ],
}


@pytest.mark.parametrize(("text", "secret"), [(text, it) for text, kind in HIDING for it in SECRETS[kind]])
def test_a_secret_within_a_text_is_masked_to_its_end(text: str, secret: str) -> None:
    parts = re.split(r"[\[\]]", text)
    masked = logs.mask("".join(parts).replace("{}", secret))
    assert "s3cr3t" not in masked
    assert "4dd" not in masked
    for readable in parts[1::2]:
        assert readable in masked


@pytest.mark.parametrize(
    "text",
    [
        "asked http://broker:8081/subjects/sales-events-value/versions/1",
        "GET https://me@server:8443/top-sales?city=Berlin&limit=10 200",
        "mail to ada@example.org: 3 sales",
        "the password was refused, and so was the token",
        "offsets {'sales-events': 7, 'key': 'sale_id'}",
    ],
)
def test_a_text_without_a_secret_stays_as_it_is(text: str) -> None:
    assert logs.mask(text) == text


def test_names_in_bytes_and_in_pairs_hide_their_values() -> None:
    out = configured("json")
    logs.get("x").info("sent", headers=[(b"Authorization", b"s3cr3t"), ("x-api-key", "s3cr3t"), ("n", 1)])
    logs.get("x").info("sent", headers={b"authorization": b"s3cr3t"}.items(), fields=("n", 1, "x"))
    assert "s3cr3t" not in out.getvalue()
    assert lines(out)[0]["headers"][2] == ["n", 1]


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "part", ["a", "token", "token=", "a://", "a:", "'", '\\"', "Bearer ", "password='\\"]
)
def test_a_long_text_takes_no_long_time(part: str) -> None:
    logs.mask(part * (200_000 // len(part)))


def _with_secrets() -> list[type[BaseSettings]]:
    return [
        kind
        for kind in vars(settings).values()
        if isinstance(kind, type)
        and issubclass(kind, BaseSettings)
        and any("SecretStr" in str(field.annotation) for field in kind.model_fields.values())
    ]


# Without these, settings with every secret would be refused as half of an authentication.
BESIDE_SECRETS = {
    "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_mechanism": "OAUTHBEARER",
    "kafka_ssl_certificate_file": "1",
    "kafka_ssl_key_file": "1",
    "kafka_oauth_token_url": "1",
    "kafka_oauth_client_id": "1",
}


def _secret(name: str, annotation: str) -> str | dict[str, str]:
    """What a person would set: a URL, a word, or words by name."""
    if "dict" in annotation:
        return {"owner": f"s3cr3t-{name}-1", "reader": f"s3cr3t-{name}-2"}
    return f"postgresql+psycopg2://u:s3cr3t-{name}@h/d" if name.endswith("_url") else f"s3cr3t-{name}"


def _revealed(value: SecretStr | dict[str, SecretStr]) -> list[str]:
    secrets = value.values() if isinstance(value, dict) else [value]
    return [secret.get_secret_value() for secret in secrets]


@pytest.mark.parametrize("kind", _with_secrets())
def test_no_setting_that_is_secret_is_ever_logged(kind: type[BaseSettings]) -> None:
    """Of every process, those to come included: the settings, their error, and a configuration made of them."""
    values = {
        name: _secret(name, str(field.annotation))
        for name, field in kind.model_fields.items()
        if "SecretStr" in str(field.annotation)
    }
    assert values
    others = {name: "1" for name, field in kind.model_fields.items() if field.is_required()}
    others |= {name: value for name, value in BESIDE_SECRETS.items() if name in kind.model_fields}
    out = configured("json")
    log = logs.get("x")
    made = kind.model_validate(others | values)
    assert all("s3cr3t" in text for name in values for text in _revealed(getattr(made, name)))
    log.info("started", settings=made, dumped=made.model_dump(), environment=values)
    log.info(f"started with {made} and {made.model_dump()}")
    log.warning(
        "connecting to %s",
        [text for name in values if "url" in name for text in _revealed(getattr(made, name))],
    )
    try:
        raise RuntimeError(f"refused: {made!r}")
    except RuntimeError:
        log.exception("failed")
    assert "started" in out.getvalue()
    assert "s3cr3t" not in out.getvalue()


def test_a_librarys_line_looks_like_ours() -> None:
    out = configured("json")
    logging.getLogger("uvicorn.error").info("started on %s", 8082)
    (line,) = lines(out)
    assert (line["event"], line["process"], line["logger"]) == ("started on 8082", "capture", "uvicorn.error")


def test_an_exception_is_one_line_of_json() -> None:
    out = configured("json")
    try:
        raise ValueError("no")
    except ValueError:
        logs.get("x").exception("failed")
    (line,) = lines(out)
    assert "ValueError: no" in line["exception"]


def test_a_process_that_never_configures_masks_too() -> None:
    """As Dagster's do."""
    code = (
        "from observability import logs; "
        "logs.get('x').warning('x', url='postgresql://u:s3cr3t@h/d', password='s3cr3t')"
    )
    done = run_python("-c", code, check=True)
    assert "postgresql://u:***@h/d" in done.stdout + done.stderr
    assert "s3cr3t" not in done.stdout + done.stderr
