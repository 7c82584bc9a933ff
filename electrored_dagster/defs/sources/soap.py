"""Payment confirmations: the partner's service is polled every five minutes, and on request."""
# No postponed annotations here: Dagster refuses an op whose context's type is text.

from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from pydantic import Field

from contracts import datasets
from contracts.schemas import load
from contracts.settings import KafkaSettings, SoapSettings
from contracts.topics import DEAD_LETTERS, PAYMENT_CONFIRMATIONS, SOURCE_POSITIONS
from electrored_dagster import metadata
from electrored_dagster.asset_specs import avro_columns, described, key
from electrored_dagster.column_lineage import came_from
from electrored_dagster.metadata import RECORDS_CHECK, NotSet, as_dagster_failure, settings
from electrored_dagster.openlineage import emitted
from lineage.emitter import ProgressCell
from sources import lineage as lineage_of

CONFIRMATIONS = datasets.topic(PAYMENT_CONFIRMATIONS)


class Polling(dg.Config):
    """Where a poll begins, and what it takes."""

    from_cursor: str | None = Field(
        default=None,
        description="Read again what stands behind this cursor; the empty one is the beginning. What comes again "
        "counts once. Left out: behind the last poll.",
    )
    set_aside: bool = Field(
        default=False, description="Take pages of which most records are bad; these become dead letters."
    )


# No retry policy: a poll retries by itself, and the next one is five minutes away.
@dg.multi_asset(
    name="poll_payment_service",
    specs=[
        described(
            CONFIRMATIONS,
            group="sources",
            kinds={"soap", "kafka"},
            deps=[datasets.PAYMENT_SERVICE],
            description="What the payment service reported of each payment, for ever. A run polls to the end of what "
            "it has; each page and the new cursor are one Kafka transaction.",
            metadata={
                "dagster/column_schema": avro_columns(load(PAYMENT_CONFIRMATIONS.schema)),
                **came_from(CONFIRMATIONS),
            },
        )
    ],
    check_specs=[
        dg.AssetCheckSpec(
            RECORDS_CHECK,
            asset=key(CONFIRMATIONS),
            description="No record of the last poll is a dead letter, and no page was left because most of it is bad.",
        )
    ],
    pool="soap",
)
def payment_confirmations(
    context: dg.AssetExecutionContext, config: Polling
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    # It reads the WSDL with zeep, which the code server does not need.
    from sources.soap.errors import MostlyBad
    from sources.soap.poll import Topics, poll

    progress = ProgressCell()
    with as_dagster_failure(), emitted(context, lineage_of.soap, progress):
        topics = Topics(PAYMENT_CONFIRMATIONS, SOURCE_POSITIONS, DEAD_LETTERS)
        try:
            result = poll(
                settings(KafkaSettings),
                settings(SoapSettings),
                topics,
                begin=config.from_cursor,
                set_aside=config.set_aside,
                on_progress=progress.set,
            )
        except MostlyBad as error:
            yield metadata.page_is_bad(error)
            raise
    read: dict[str, Any] = {"cursor": result.cursor_after, "pages": result.pages}
    context.log_event(dg.AssetObservation(key(datasets.PAYMENT_SERVICE), metadata=read))
    yield dg.MaterializeResult(
        asset_key=key(CONFIRMATIONS),
        metadata=metadata.polled(result),
        check_results=[metadata.records_are_good(result)],
    )


soap_poll = dg.define_asset_job(
    "soap_poll",
    selection=[payment_confirmations],
    executor_def=dg.in_process_executor,
    description="Polls the payment service now.",
)


@dg.schedule(job=soap_poll, cron_schedule="*/5 * * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def poll_payments(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Polls the payment service, if one is set and the last poll is over."""
    try:
        settings(SoapSettings)
    except NotSet as error:
        return dg.SkipReason(f"no payment service is set: {error}")
    polling = dg.RunsFilter(job_name=soap_poll.name, statuses=NOT_FINISHED_STATUSES)
    if context.instance.get_run_records(polling, limit=1):
        return dg.SkipReason("a poll is on its way")
    return dg.RunRequest()
