"""One name per dataset, the same in Dagster's graph, in lineage and on pages.

A dataset is named by the system that holds it and by its real name there; Dagster's key is the path of both,
OpenLineage's name joins the real name with dots (PostgreSQL) or leaves it as it is (Kafka).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import make_url

from contracts.settings import CsvSettings, KafkaSettings, ResultsDbSettings, SalesDbSettings, SoapSettings
from contracts.topics import (
    ENRICHED_SALES,
    PAYMENT_CONFIRMATIONS,
    SALES_EVENTS,
    TOP_SALES_BY_CITY,
    TOP_SALESMAN_BY_COUNTRY,
    GenerationTopics,
    Topic,
    combine_step,
)

SALES_DB, KAFKA, RESULTS_DB, FILES, SOAP = "sales_db", "kafka", "results_db", "files", "soap"
# A pipeline has the name of its public topic; its view the same with underscores. The inputs of each.
INPUTS = {
    TOP_SALES_BY_CITY.name: (SALES_EVENTS,),
    TOP_SALESMAN_BY_COUNTRY.name: (SALES_EVENTS,),
    ENRICHED_SALES.name: (SALES_EVENTS, PAYMENT_CONFIRMATIONS),
}
PIPELINES = tuple(INPUTS)
# Views that belong to no pipeline: the active generations with their watermarks.
OTHER_VIEWS = ("active_freshness",)
ROLES = ("partials", "state")


@dataclass(frozen=True, order=True)
class Dataset:
    """`system` is one of the names above; `path` the real name, from the outermost level to the innermost."""

    system: str
    path: tuple[str, ...]

    @property
    def key(self) -> list[str]:
        """Path for Dagster: `results_db/public/top_sales_by_city`."""
        return [self.system, *self.path]

    @property
    def name(self) -> str:
        """The real name within its system: `public.top_sales_by_city`, `sales-events`."""
        return ".".join(self.path)


def topic(of: Topic) -> Dataset:
    return Dataset(KAFKA, (of.name,))


def internal(pipeline: str, role: str) -> Dataset:
    """A generation's internal topic, by role and not by number.

    The graph shows what a pipeline does; which generation does it now is metadata of an observation.
    """
    return Dataset(KAFKA, (f"{pipeline}.{role}",))


def internal_topic(pipeline: str, generation: int, role: str) -> Topic:
    """The topic that `internal` stands for in one generation."""
    topics = GenerationTopics(pipeline, generation)
    return {"partials": topics.partials, "state": topics.state}[role]


def combine_groups(pipeline: str, generation: int) -> list[str]:
    """The consumer groups that read a pipeline's inputs."""
    names = [topic.name for topic in INPUTS[pipeline]]
    topics = GenerationTopics(pipeline, generation)
    return [topics.group_id(combine_step(names, name)) for name in names]


def view_name(pipeline: str) -> str:
    return pipeline.replace("-", "_")


def view_names() -> tuple[str, ...]:
    """The views of the results database."""
    return (*OTHER_VIEWS, *map(view_name, PIPELINES))


def view(pipeline: str) -> Dataset:
    """The view of a pipeline's active generation."""
    return Dataset(RESULTS_DB, ("public", view_name(pipeline)))


def difference(pipeline: str) -> Dataset:
    """The differences of a pipeline's replays from its active generation; rows of two tables."""
    return Dataset(RESULTS_DB, ("public", "differences", view_name(pipeline)))


SALES = Dataset(SALES_DB, ("public", "sales"))
CSV_INBOX = Dataset(FILES, ("inbox",))
CSV_SALES = Dataset(RESULTS_DB, ("public", "csv_sales"))
PAYMENT_SERVICE = Dataset(SOAP, ("payments",))

OPENLINEAGE_KAFKA_PORT, OPENLINEAGE_POSTGRES_PORT = 9092, 5432


def table(name: str) -> Dataset:
    """A table or view of the results database."""
    return Dataset(RESULTS_DB, ("public", name))


class Places:
    """Addresses of the systems, from a process's settings: OpenLineage names a dataset by the server that holds it."""

    def __init__(
        self,
        *settings: KafkaSettings | SalesDbSettings | ResultsDbSettings | CsvSettings | SoapSettings,
    ) -> None:
        # By system: the namespace, and what stands before a dataset's own name.
        self._systems: dict[str, tuple[str, str]] = {}
        for system in settings:
            match system:
                case KafkaSettings():
                    first = system.kafka_bootstrap.split(",")[0].split("://")[-1].strip()
                    self._systems[KAFKA] = (f"kafka://{_with_port(first, OPENLINEAGE_KAFKA_PORT)}", "")
                case SalesDbSettings():
                    self._systems[SALES_DB] = _postgres(system.sales_db_url.get_secret_value())
                case ResultsDbSettings():
                    self._systems[RESULTS_DB] = _postgres(system.results_db_url.get_secret_value())
                case CsvSettings():
                    self._systems[FILES] = ("file", str(Path(system.csv_inbox).absolute()))
                case SoapSettings():
                    # OpenLineage has no rule for SOAP: named by its address, as objects in a bucket are.
                    url = urlsplit(system.soap_wsdl)
                    # Without the user and password that an address may hold.
                    server = url.netloc.rpartition("@")[2]
                    self._systems[SOAP] = (f"{url.scheme}://{server}", url.path.strip("/"))

    def has(self, dataset: Dataset) -> bool:
        return dataset.system in self._systems

    def name(self, dataset: Dataset) -> tuple[str, str]:
        """Namespace and name by OpenLineage's rules. Raises KeyError for a system without settings."""
        namespace, before = self._systems[dataset.system]
        if dataset.system in (FILES, SOAP):
            return namespace, before
        return namespace, f"{before}{dataset.name}"


def _postgres(text: str) -> tuple[str, str]:
    url = make_url(text)
    return f"postgres://{url.host or 'localhost'}:{url.port or OPENLINEAGE_POSTGRES_PORT}", f"{url.database}."


def _with_port(address: str, port: int) -> str:
    return address if address.rpartition(":")[2].isdigit() else f"{address}:{port}"
