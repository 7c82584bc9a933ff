# One image for all our processes; docker-compose.yml says which of them a container runs.
# A digest would pin the base harder than its tag does: add one where the registry can be asked.
FROM python:3.11.17-slim-bookworm AS build

# The version of the Makefile. It installs the rest by hash, and stays behind in this stage.
RUN pip install --no-cache-dir uv==0.13.9
COPY requirements.image.lock /build/
# Every library comes as a wheel: no compiler is needed, and none is asked for.
RUN python -m venv /opt/venv \
    && uv pip sync --python /opt/venv/bin/python --require-hashes --compile-bytecode --no-cache \
       --no-build /build/requirements.image.lock


FROM python:3.11.17-slim-bookworm

# Its number is in no file of the host; volumes that are new get their owner from these folders.
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/electrored --shell /usr/sbin/nologin electrored \
    && mkdir -p /var/lib/electrored/state /var/lib/electrored/inbox /var/lib/electrored/payments \
       /var/lib/electrored/lineage /var/lib/electrored/dagster/storage \
    && chown -R electrored:electrored /var/lib/electrored

COPY --from=build /opt/venv /opt/venv
WORKDIR /opt/electrored
# Dagster looks for pyproject.toml above its definitions.
COPY pyproject.toml dagster.yaml workspace.yaml ./
COPY contracts ./contracts
COPY observability ./observability
COPY kafka_client ./kafka_client
COPY lineage ./lineage
COPY observer ./observer
COPY sources ./sources
COPY streaming ./streaming
COPY api ./api
COPY electrored_dagster ./electrored_dagster
COPY simulators ./simulators
COPY stack ./stack
COPY deploy ./deploy
RUN /opt/venv/bin/python -m compileall -q . \
    && /opt/venv/bin/python -m electrored_dagster.column_lineage > electrored_dagster/columns.json \
    && ln -s /opt/electrored/dagster.yaml /var/lib/electrored/dagster/dagster.yaml

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/electrored \
    PYTHONUNBUFFERED=1 \
    DAGSTER_HOME=/var/lib/electrored/dagster \
    DAGSTER_DISABLE_TELEMETRY=yes \
    ELECTRORED_STATE_DIR=/var/lib/electrored \
    ELECTRORED_CSV_INBOX=/var/lib/electrored/inbox \
    ELECTRORED_API_HOST=0.0.0.0 \
    ELECTRORED_METRICS_HOST=0.0.0.0 \
    ELECTRORED_METRICS_PORT=9200 \
    ELECTRORED_LOG_FORMAT=json
USER 10001:10001
EXPOSE 8082 9200
# Every process that moves data serves its metrics; what serves something else says so where it is started.
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=6 \
    CMD ["python", "-I", "-S", "/opt/electrored/deploy/healthy.py", "http://127.0.0.1:9200/metrics"]
CMD ["python", "-m", "api"]
