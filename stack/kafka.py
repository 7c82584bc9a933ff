"""One Kafka broker in KRaft mode: its configuration, and whether it is ready."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stack import java
from stack.broker import AGENT_OPTION
from stack.errors import StackError
from stack.ports import LOOPBACK, answers

# A constant: the id is only checked against the data folder.
CLUSTER_ID = "ZWxlY3Ryb3JlZC1lbWJlZA"
# A broker of one small platform; the page cache does the rest.
HEAP = ("-Xms128m", "-Xmx512m")
READY_TIMEOUT_SECONDS = 3.0
# Which of the broker's figures are exported to Prometheus.
JMX_RULES = Path(__file__).parent.parent / "observability" / "prometheus" / "kafka-jmx.yml"

LOG4J = """\
status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


@dataclass(frozen=True)
class Kafka:
    """A broker with its data below `folder`, on two loopback ports."""

    folder: Path
    port: int
    controller_port: int
    # Where the Prometheus agent serves the broker's own figures; None: without the agent.
    metrics_port: int | None = None

    @property
    def bootstrap(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def properties(self) -> dict[str, str]:
        """The broker's configuration: one node, and short waits after a death."""
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{LOOPBACK}:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{LOOPBACK}:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            # One node holds every replica.
            "default.replication.factor": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            # Coordinators of one node: more partitions only cost files and start-up.
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.num.partitions": "1",
            # By default a killed worker's partitions would be reassigned after 45 s.
            "group.consumer.session.timeout.ms": "5000",
            "group.consumer.min.session.timeout.ms": "5000",
            "group.consumer.heartbeat.interval.ms": "1000",
            "group.consumer.min.heartbeat.interval.ms": "1000",
            "group.initial.rebalance.delay.ms": "0",
            # How often timed out transactions of dead producers are aborted; by default every 10 s.
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
            # Compacted topics are read back at a start, so they are kept short.
            "log.cleaner.backoff.ms": "1000",
        }

    def prepare(self) -> subprocess.Popen[bytes] | None:
        """Write the configuration and begin to format the data folder if it is new; `finish` waits for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{name}={value}" for name, value in self.properties().items()]
        self._config.write_text("\n".join(lines) + "\n")
        (self.folder / "log4j2.properties").write_text(LOG4J)
        if (self.folder / "data" / "meta.properties").exists():
            return None
        arguments = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self._config)]
        return subprocess.Popen(
            [*self._java("-XX:TieredStopAtLevel=1"), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.environment,
        )

    def finish(self, formatting: subprocess.Popen[bytes] | None) -> None:
        """Wait for what `prepare` began."""
        if formatting is not None:
            _, complaint = formatting.communicate(timeout=60)
            if formatting.returncode != 0:
                # Java's first line is the reason, followed by the stack trace.
                reason = (complaint.decode(errors="replace").strip().splitlines() or ["no message"])[0]
                raise StackError(
                    f"Kafka could not format {self.folder / 'data'}: {reason}",
                    "check that the folder is writable and the disk has room",
                )

    @property
    def command(self) -> list[str]:
        options = [*HEAP, "-XX:MaxGCPauseMillis=20", *self._agent]
        command = [*self._java(*options), "kafka.Kafka", str(self._config)]
        return [sys.executable, "-m", "stack.broker", str(self.folder), *command]

    @property
    def _agent(self) -> list[str]:
        if self.metrics_port is None:
            return []
        (jar,) = java.fetch(java.JMX_EXPORTER)
        return [f"{AGENT_OPTION}{jar}={LOOPBACK}:{self.metrics_port}:{JMX_RULES}"]

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"}

    @property
    def _config(self) -> Path:
        return self.folder / "server.properties"

    def _java(self, *options: str) -> list[str]:
        class_path = ":".join(str(jar) for jar in java.fetch("kafka"))
        log4j = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        return [str(java.java()), *options, log4j, "-cp", class_path]

    def is_ready(self) -> bool:
        """Whether the broker answers a request, not only a connection."""
        return answers(self.port) and is_ready(self.bootstrap)


def is_ready(bootstrap: str) -> bool:
    """Whether the broker at this address answers a request."""
    # A starting broker refuses connections; librdkafka's log lines about it are discarded.
    silent = logging.getLogger("stack.kafka.probe")
    silent.propagate = False
    silent.addHandler(logging.NullHandler())
    client = AdminClient({"bootstrap.servers": bootstrap, "log.connection.close": False}, logger=silent)
    try:
        client.list_topics(timeout=READY_TIMEOUT_SECONDS)
    except KafkaException:
        return False
    return True


def is_reachable(bootstrap: str) -> bool:
    """Whether one of the addresses accepts connections; the processes authenticate themselves."""
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), READY_TIMEOUT_SECONDS).close()
        except (OSError, ValueError):
            continue
        return True
    return False
