# Apache's Kafka and, in the broker, the agent that shows its own figures to Prometheus (observability/prometheus/).
# The agent is the embedded stack's, from Maven Central as any Maven finds it, and held to the same checksum.
FROM maven:3.9.16-eclipse-temurin-21 AS agent
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY stack/jmx-exporter.lock /
# The lock's lines: a comment, then group:name:version:classifier:packaging sha256.
RUN { read -r _; IFS=': ' read -r group name version _ _ sha256; } < /jmx-exporter.lock \
    && mvn --batch-mode --quiet org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
       -Dartifact="$group:$name:$version" -DoutputDirectory=/agent -Dmdep.stripVersion=true \
    && echo "$sha256  /agent/$name.jar" | sha256sum --check


FROM apache/kafka:4.3.1
COPY --from=agent /agent /opt/agent
COPY observability/prometheus/kafka-jmx.yml /opt/agent/
