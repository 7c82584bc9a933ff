"""Writes the lock files of the Java programs: `python -m stack.lock` resolves them with every SHA-256."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from jgo.env import EnvironmentBuilder
from jgo.maven import MavenContext

# Kafka logs through slf4j without a binding, so one is added; with "!" its parent does not manage the versions of
# other artifacts.
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!"
KAFKA = f"org.apache.kafka:kafka_2.13:4.3.1+{LOGGING}"
# What `make bench` measures beside ours; nothing that is started needs it.
KAFKA_STREAMS = f"org.apache.kafka:kafka-streams:4.3.1+org.apache.avro:avro:1.12.1+{LOGGING}"
REGISTRY = ("io.apicurio", "apicurio-registry-app", "3.3.3", "all", "tar.gz")
JMX_EXPORTER = ("io.prometheus.jmx", "jmx_prometheus_javaagent", "1.0.1", "", "jar")


def class_path(context: MavenContext, endpoint: str, scratch: Path) -> list[str]:
    """A line for each jar of it. The builder keeps one environment in a folder, so each needs its own."""
    environment = EnvironmentBuilder(context, cache_dir=scratch).from_endpoint(endpoint)
    lockfile = environment.lockfile
    assert lockfile is not None
    return [
        f"{d.groupId}:{d.artifactId}:{d.version}:{d.classifier or ''}:{d.packaging} {d.sha256}"
        for d in lockfile.dependencies
    ]


def single(context: MavenContext, wanted: tuple[str, str, str, str, str]) -> list[str]:
    """The line of the one archive that holds everything."""
    group, name, version, classifier, packaging = wanted
    component = context.project(group, name).at_version(version)
    archive = component.artifact(classifier=classifier, packaging=packaging).resolve()
    return [f"{':'.join(wanted)} {hashlib.sha256(archive.read_bytes()).hexdigest()}"]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch) / "maven")
        pins = {
            "kafka": class_path(context, KAFKA, Path(scratch) / "kafka"),
            "kafka-streams": class_path(context, KAFKA_STREAMS, Path(scratch) / "kafka-streams"),
            "registry": single(context, REGISTRY),
            "jmx-exporter": single(context, JMX_EXPORTER),
        }
        for program, lines in pins.items():
            head = "# group:name:version:classifier:packaging sha256; written by `make lock-java`"
            (Path(__file__).parent / f"{program}.lock").write_text("\n".join([head, *lines]) + "\n")


if __name__ == "__main__":
    main()
