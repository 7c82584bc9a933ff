"""Replay: a generation built from the whole log beside the live one, in slices, and its difference.

A job for any pipeline and parameters; an asset for each pipeline with windows, so that a backfill of its partitions is
one replay of these windows.
"""
# No postponed annotations here: Dagster refuses an op whose context's type is text.

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any

import dagster as dg
from dagster._core.storage.tags import BACKFILL_ID_TAG
from pydantic import Field

from contracts import datasets
from contracts.datasets import INPUTS
from contracts.topics import ENRICHED_SALES, SALES_EVENTS, TOP_SALES_BY_CITY, TOP_SALESMAN_BY_COUNTRY
from electrored_dagster import differences, generations
from electrored_dagster.asset_specs import described, key
from electrored_dagster.generations import GenerationRef, SliceRef, SliceResult, connected
from electrored_dagster.metadata import as_dagster_failure
from electrored_dagster.openlineage import emitted

# One replay at a time over all pipelines: it gets what live traffic leaves of a machine.
POOL = "replay"
GROUP = "generations"
# Windows are those of the active generation, whose zone and calendar a promotion changes while this code is loaded: the
# sensor that observes the platform adds them as they begin, and takes away those that the active one has not.
WINDOWS = {
    TOP_SALES_BY_CITY.name: dg.DynamicPartitionsDefinition(name="city_windows"),
    TOP_SALESMAN_BY_COUNTRY.name: dg.DynamicPartitionsDefinition(name="salesman_windows"),
}


class Replay(dg.Config):
    """What is replayed, and why. What is left out is taken from the active generation."""

    pipeline: str = Field(description="top-sales-by-city, top-salesman-by-country or enriched-sales")
    reason: str = Field(description="Kept with the generation")
    requested_by: str = "Dagster"
    version: int | None = Field(default=None, description="Of the pipeline; the newest if left out")
    grace_seconds: float | None = Field(default=None, description="Until a fact is late; not with a range")
    calendar: str | None = Field(
        default=None, description="1-day, 30-days or calendar-month; not with a range"
    )
    time_zone: str | None = Field(default=None, description="Of the windows' bounds; not with a range")
    range_start: str | None = Field(
        default=None,
        description="Nothing may differ in windows that begin before it: 2026-03-01T00:00:00+01:00, or 2026-03-01 "
        "by the clocks of the active generation's zone",
    )
    range_end: str | None = Field(default=None, description="Nor in windows that begin at it or later")


class Backfill(dg.Config):
    """Why these windows are replayed."""

    reason: str = "backfill"
    requested_by: str = "Dagster"


def _moment(text: str, name: str) -> datetime:
    from streaming.replay.errors import RequestRefused

    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise RequestRefused(f"{name} is no date and no time: {text!r}; 2026-03-01 is one") from error


@dg.op(pool=POOL)
def begin(context: dg.OpExecutionContext, config: Replay) -> GenerationRef:
    """Creates the generation, or resumes the one that a dead run left of the same request."""
    with as_dagster_failure(), connected() as (kafka, results, _):
        from streaming.replay import build
        from streaming.replay.errors import RequestRefused
        from streaming.replay.request import Range, Request, grace

        if (config.range_start is None) != (config.range_end is None):
            raise RequestRefused("a range has a start and an end")
        windows = None
        if config.range_start is not None and config.range_end is not None:
            windows = Range(
                _moment(config.range_start, "range_start"), _moment(config.range_end, "range_end")
            )
        request = Request(
            config.pipeline,
            config.reason,
            config.requested_by,
            version=config.version,
            grace=grace(config.grace_seconds),
            calendar=config.calendar,
            time_zone=config.time_zone,
            range=windows,
        )
        generation = build.begin(kafka, results, request)
        context.log.info("building %s", generation)
        return GenerationRef(generation.pipeline, generation.number)


def _begin_windows(pipeline: str) -> dg.OpDefinition:
    # As the job's step, for one pipeline; the range comes from the partitions.
    @dg.op(name=f"begin_{datasets.view_name(pipeline)}", pool=POOL, ins={"log": dg.In(dg.Nothing)})
    def begin_windows(context: dg.OpExecutionContext, config: Backfill) -> GenerationRef:
        """Creates the generation for these partitions; the runs of one backfill share one."""
        with as_dagster_failure(), connected() as (kafka, results, _):
            from streaming.replay import build
            from streaming.replay.request import Request

            # Windows are known in the order in which they were added.
            first, last = min(context.partition_keys), max(context.partition_keys)
            request = Request(
                pipeline,
                config.reason,
                config.requested_by,
                range=generations.windows(results, pipeline, first, last),
                backfill=context.run.tags.get(BACKFILL_ID_TAG),
            )
            generation = build.begin(kafka, results, request)
            context.log.info("%s replays the windows of %s to %s", generation, first, last)
            return GenerationRef(generation.pipeline, generation.number)

    return begin_windows


def _slices(generation: GenerationRef, *, merge: bool) -> Iterator[dg.DynamicOutput[SliceRef]]:
    with as_dagster_failure(), connected() as (_, results, _):
        for piece in generations.slice_refs(results, generation, merge=merge):
            yield dg.DynamicOutput(piece, mapping_key=piece.mapping_key)


@dg.op(out=dg.DynamicOut(SliceRef), pool=POOL)
def combine_slices(generation: GenerationRef) -> Iterator[dg.DynamicOutput[SliceRef]]:
    """combine: a slice for each partition of the log."""
    yield from _slices(generation, merge=False)


@dg.op(out=dg.DynamicOut(SliceRef), pool=POOL)
def merge_slices(
    generation: GenerationRef, combined: list[SliceResult]
) -> Iterator[dg.DynamicOutput[SliceRef]]:
    """merge: a slice for each partition of the partials, once all partials are written."""
    yield from _slices(generation, merge=True)


@dg.op(pool=POOL)
def run_slice(context: dg.OpExecutionContext, piece: SliceRef) -> SliceResult:
    """Runs a slice; a killed one resumes from its progress."""
    with as_dagster_failure(), connected() as (kafka, results, replay):
        from streaming.replay import build

        build.be_nice()
        asset = key(datasets.difference(piece.generation.pipeline))

        def on_progress(progress: dict[str, Any]) -> None:
            context.log.info(
                "%(slice)s: %(events)s events, %(done).1f%%, %(rate)s/s, %(left)s s left",
                {
                    "slice": progress["slice"],
                    "events": f"{progress['events']:,}",
                    "done": 100 * progress["done"],
                    "rate": f"{progress['events_per_second']:,}",
                    "left": progress.get("seconds_left", "?"),
                },
            )
            metadata = {"generation": piece.generation.number, **progress}
            context.log_event(dg.AssetObservation(asset, metadata=metadata))

        return generations.run_slice(kafka, results, replay, piece, on_progress, partial(emitted, context))


@dg.op(pool=POOL, out=dg.Out(dg.Nothing))
def compare(
    context: dg.OpExecutionContext,
    generation: GenerationRef,
    combined: list[SliceResult],
    merged: list[SliceResult],
) -> Iterator[dg.Output[None]]:
    """Makes the generation a candidate, and reports what differs from the active one."""
    with as_dagster_failure(), connected() as (kafka, results, _):
        from streaming.generations.catalog import load
        from streaming.replay import build

        build.finish(results, load(results, generation.pipeline, generation.number))
        difference = generations.caught_up(kafka, results, generation, context.log.info)
        metadata = differences.described(results, difference)
        # Work of an earlier run of a slice counts in its events, not in its seconds.
        metadata["events"] = sum(result.events for result in combined)
        metadata["slice_seconds"] = round(sum(result.seconds for result in [*combined, *merged]), 1)
        if not context.has_assets_def:
            asset = key(datasets.difference(generation.pipeline))
            context.log_event(dg.AssetMaterialization(asset, metadata=metadata))
        yield dg.Output(None, metadata=metadata)


def _replayed(generation: Any) -> Any:
    combined = combine_slices(generation).map(run_slice).collect()
    merged = merge_slices(generation, combined).map(run_slice.alias("run_merge_slice")).collect()
    return compare(generation, combined, merged)


@dg.job(
    description="Computes a pipeline again from the whole log, beside the live one, and shows what differs. The result "
    "is not served before `promote`. A killed run resumes from its progress when it is started again.",
)
def replay() -> None:
    _replayed(begin())


def _asset(pipeline: str, partitions: dg.PartitionsDefinition[str], description: str) -> dg.AssetsDefinition:
    dataset = datasets.difference(pipeline)
    begin_windows = _begin_windows(pipeline)
    # The decorator takes the parts of a spec, not the spec.
    spec = described(dataset, group=GROUP, kinds={"kafka", "postgres"}, description=description)

    @dg.graph_asset(
        key=spec.key,
        name=None,
        description=description,
        group_name=GROUP,
        kinds=set(spec.kinds),
        metadata=dict(spec.metadata),
        ins={"log": dg.AssetIn(key(datasets.topic(SALES_EVENTS)), dagster_type=dg.Nothing)},
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def difference(log: Any) -> Any:
        return _replayed(begin_windows(log))

    return difference


@dg.definitions
def replaying() -> dg.Definitions:
    return dg.Definitions(
        jobs=[replay],
        assets=[
            _asset(
                TOP_SALES_BY_CITY.name,
                WINDOWS[TOP_SALES_BY_CITY.name],
                "What a replay of these days changes. A backfill over any range is one replay, beside the live one; "
                "nothing may differ outside of the range.",
            ),
            _asset(
                TOP_SALESMAN_BY_COUNTRY.name,
                WINDOWS[TOP_SALESMAN_BY_COUNTRY.name],
                "What a replay of these windows changes. A backfill over any range is one replay, beside the live one; "
                "nothing may differ outside of the range.",
            ),
            described(
                datasets.difference(ENRICHED_SALES.name),
                group=GROUP,
                kinds={"kafka", "postgres"},
                deps=[datasets.topic(topic) for topic in INPUTS[ENRICHED_SALES.name]],
                description="What a replay of the join changes; it has no windows, and is computed again as a whole.",
            ),
        ],
    )
