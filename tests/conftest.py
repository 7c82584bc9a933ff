"""What tests share: an embedded Kafka, registry and PostgreSQL, and fresh databases on it."""

from __future__ import annotations

import gc
import logging
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from uuid import uuid4

import pytest
import structlog
from filelock import FileLock
from hypothesis import HealthCheck, settings

from contracts.settings import ResultsDbSettings, SalesDbSettings
from observability.waits import WAITS
from stack import databases
from stack.embedded import Embedded, running
from tests.support import openlineage as validity
from tests.support.kafka import shared_reader
from tests.support.machine import SLOWNESS

# Properties have no deadline per example, since the machine may be busy; the whole test has one. Set here and not in
# their modules: a module imported by another test keeps the settings in force at its import.
settings.register_profile(
    "busy", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--openlineage-spec",
        metavar="FOLDER",
        type=Path,
        help="hold events to the schema files of a clone of OpenLineage, too: its folder `spec`",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A slower machine than that which limits were set on has longer, as in tests/support/waiting.py."""
    for item in items:
        marker = item.get_closest_marker("timeout")
        seconds = marker.args[0] if marker else float(item.config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(seconds * SLOWNESS), append=False)


def pytest_configure(config: pytest.Config) -> None:
    """Treat SIGTERM as Ctrl-C, so that what the session started is stopped in order."""
    folder = config.getoption("--openlineage-spec")
    if folder is not None:
        validity.specification = validity.Specification.read(folder)

    # To stderr as the product: not into output that a test reads.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    # A background shell ignores SIGINT, for child processes too: Dagster's code server would not
    # even end on SIGTERM.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    """Waits are global to the process: a test leaves none to the next."""
    yield
    WAITS._waits.clear()
    WAITS._turns.clear()


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """For tests that configure logging: their handler's stream is closed with the test."""
    root, configured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.configure(**configured)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """Real servers on free ports; one start for the whole session, or for each of its workers.

    Not in pytest's own temporary folder: every session of pytest closes that to other users,
    and a PostgreSQL started by root runs as one.
    """
    folder = Path(tempfile.mkdtemp(prefix="electrored-test-"))
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        # Workers start one after the other: otherwise two could choose the same free port.
        with FileLock(tmp_path_factory.getbasetemp().parent / "starting.lock"):
            # A database for each test: its copy and drop are checkpoints, which wait for the disk otherwise. What a
            # killed server has written survives all the same, as long as the machine runs.
            embedded = cleanup.enter_context(running(folder, {"fsync": "off"}))
        cleanup.enter_context(shared_reader(embedded.kafka))
        yield embedded
        # An uncollected client in a reference cycle would log at length that its servers are gone.
        gc.collect()


@pytest.fixture
def sales_db(stack: Embedded) -> Iterator[SalesDbSettings]:
    """A fresh sales database with an empty `public.sales` and its publication; the URL is the superuser's."""
    name = f"sales_{uuid4().hex[:12]}"
    url = databases.create_database(stack.postgres(), name)
    databases.provision_sales(url)
    yield SalesDbSettings.model_validate(
        {"sales_db_url": url.render_as_string(hide_password=False), "sales_slot": name}
    )
    databases.drop_database(stack.postgres(), name)


@pytest.fixture(scope="session")
def results_template(stack: Embedded) -> str:
    """A migrated results database to copy: a copy takes milliseconds, the migrations do not."""
    from contracts.migrate import upgrade

    name = "results_template"
    url = databases.create_database(stack.postgres(), name, owner=databases.WRITER)
    databases.provision_results(url)
    upgrade(stack.postgres(name, databases.WRITER).render_as_string(hide_password=False))
    return name


@pytest.fixture
def results_db(stack: Embedded, results_template: str) -> Iterator[ResultsDbSettings]:
    """A fresh, migrated results database; the URL is the writer's."""
    name = f"results_{uuid4().hex[:12]}"
    databases.create_database(stack.postgres(), name, owner=databases.WRITER, template=results_template)
    url = stack.postgres(name, databases.WRITER)
    yield ResultsDbSettings.model_validate({"results_db_url": url.render_as_string(hide_password=False)})
    databases.drop_database(stack.postgres(), name)
