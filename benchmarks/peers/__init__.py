"""Programs of others on the same log: Kafka Streams with the same question, kcat with none. Figures are per CPU-second.

Nothing is installed: what a machine lacks is reported as `Missing`.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psutil
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from benchmarks.harness import Harness
from contracts.topics import Topic
from kafka_client import clients as connect
from stack import java
from stack.errors import StackError

PROGRAM = "TopSalesByCity"
SCHEMAS = Path(__file__).parents[2] / "contracts" / "schemas"
# Kafka Streams takes 25 s for 2,000,000 events on two cores of its own.
PATIENCE_SECONDS = 600
# The oldest Java that our Kafka runs on.
RELEASE = str(java.OLDEST_JAVA)


class Missing(Exception):
    """The machine has no such program; the message names what to install."""


def kcat(harness: Harness, events: int) -> float:
    """`kcat -C -f ''` over the log of sales: events a CPU-second, its start included."""
    program = shutil.which("kcat")
    if program is None:
        raise Missing("no kcat: install it")
    before = _spent_by_children()
    command = [program, "-C", "-b", harness.kafka.kafka_bootstrap, "-t", harness.source.name]
    subprocess.run([*command, "-o", "beginning", "-e", "-q", "-f", ""], check=True, timeout=PATIENCE_SECONDS)
    return events / (_spent_by_children() - before)


def _spent_by_children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def kafka_streams(harness: Harness, events: int) -> float:
    """TopSalesByCity.java over the log of sales: events a CPU-second, from when it has its partitions until every
    event is added up. Raises RuntimeError unless its output counts each once.
    """
    with tempfile.TemporaryDirectory(prefix="electrored-bench-") as folder:
        class_path = _compiled(Path(folder))
        # Its name is the application's as well: a new one reads from the beginning.
        output = Topic(f"peer-{uuid4().hex[:8]}", "window and group", harness.source.partitions, "")
        connect.ensure_topics(harness.kafka, [output])
        schema = SCHEMAS / f"{harness.source.schema}.avsc"
        command = [
            *(str(java.java()), "-Xmx1g", "-cp", class_path, PROGRAM),
            *(
                harness.kafka.kafka_bootstrap,
                harness.source.name,
                output.name,
                str(schema),
                folder,
                str(events),
            ),
        ]
        cpu_seconds = _added_up(command, Path(folder) / "stderr")
    counted = _counted(harness, output)
    if counted != events:
        raise RuntimeError(f"Kafka Streams counted {counted:,} of {events:,} events")
    return events / cpu_seconds


def javac() -> str:
    """The compiler of JAVA_HOME, else of PATH."""
    home = os.environ.get("JAVA_HOME")
    found = (home and shutil.which("javac", path=f"{home}/bin")) or shutil.which("javac")
    if not found:
        raise Missing(f"no JDK: install one of version {RELEASE} or newer")
    return found


def _compiled(folder: Path) -> str:
    """The class path of the compiled program."""
    compiler = javac()
    try:
        jars = [str(jar) for jar in java.fetch("kafka-streams")]
    except StackError as error:
        raise Missing(str(error)) from error
    source = str(Path(__file__).parent / f"{PROGRAM}.java")
    command = [compiler, "--release", RELEASE, "-d", str(folder), "-cp", ":".join(jars), source]
    subprocess.run(command, check=True, timeout=PATIENCE_SECONDS)
    return ":".join([str(folder), *jars])


def _added_up(command: list[str], log: Path) -> float:
    """CPU-seconds between the two lines that the program prints."""
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        watchdog = threading.Timer(PATIENCE_SECONDS, process.kill)
        watchdog.start()
        try:
            spent = []
            for line in process.stdout or ():
                if line.strip() in ("running", "done"):
                    times = psutil.Process(process.pid).cpu_times()
                    spent.append(times.user + times.system)
        finally:
            watchdog.cancel()
    if process.returncode != 0 or len(spent) < 2:
        raise RuntimeError(f"{PROGRAM} ended with {process.returncode}: {log.read_text()[-2000:]}")
    # It reports to be running again after a rebalance.
    return spent[-1] - spent[0]


def _counted(harness: Harness, output: Topic) -> int:
    """The sum of the newest counts of all groups."""
    counts: dict[bytes, int] = {}
    reader = connect.consumer(harness.kafka, output.name, subscribed=False)
    with closing(reader):
        reader.assign([TopicPartition(output.name, p, OFFSET_BEGINNING) for p in range(output.partitions)])
        ended = 0
        while ended < output.partitions:
            for message in reader.consume(10_000, 1):
                if message.error() is not None:
                    ended += 1
                else:
                    counts[message.key() or b""] = int.from_bytes((message.value() or b"")[8:])
    return sum(counts.values())
