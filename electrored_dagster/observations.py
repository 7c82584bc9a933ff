"""From a platform status to the events that Dagster shows; no I/O and no clock."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from contracts import datasets
from contracts.datasets import ROLES, Dataset
from contracts.topics import PAYMENT_CONFIRMATIONS, PUBLIC, SALES_EVENTS, SOURCE_POSITIONS, Topic
from electrored_dagster.asset_specs import evaluation, key
from observer.platform_status import Findings, PipelineStatus, PlatformStatus

# How often a result is reported when only its watermark moved; its freshness policy allows for three of them.
HEARTBEAT = timedelta(minutes=10)
POSTGRES_SOURCE = "postgres"
OVERLAP_CHECK = "sale_ids_in_both_sources"
NEGATIVE_CHECK = "no_negative_groups"
DUPLICATES_CHECK = "no_event_is_dropped"
# What the pipelines read; sources give no seq twice, so none of their events is a duplicate.
LOGS = (SALES_EVENTS, PAYMENT_CONFIRMATIONS)
FUTURE_CHECK = "sales_in_the_future"
RULES_CHECK = "zone_rules_are_current"

Event = dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation


@dataclass(frozen=True)
class Observed:
    """One asset's state. An event is due when `facts` differ from those of the last event.

    Watermarks and the ends of internal topics move every second of an idle platform: shown, but no facts. A
    result has a `watermark`; its events are materialisations, because only those count for freshness.
    """

    dataset: Dataset
    facts: str
    metadata: dict[str, Any]
    is_result: bool = False
    watermark: datetime | None = None

    @property
    def event(self) -> Event:
        # Values that are not known are left out.
        metadata = {name: value for name, value in self.metadata.items() if value is not None}
        if self.is_result:
            return dg.AssetMaterialization(key(self.dataset), metadata=metadata)
        return dg.AssetObservation(key(self.dataset), metadata=metadata)


def changed(status: PlatformStatus, cursor: str | None, now: datetime) -> tuple[list[Event], str]:
    """The events that are due, and the new cursor."""
    remembered: dict[str, dict[str, Any]] = json.loads(cursor) if cursor else {}
    events: list[Event] = []
    for observed in observations(status):
        name = "/".join(observed.dataset.key)
        if _is_due(observed, remembered.get(name), now):
            events.append(observed.event)
            remembered[name] = {
                "facts": observed.facts,
                "watermark": _text(observed.watermark),
                "at": now.isoformat(),
            }
    results = {
        OVERLAP_CHECK: (f"{status.overlap.count}", overlap_result(status.overlap)),
        FUTURE_CHECK: (f"{status.future.count}", future_result(status.future)),
        **{
            f"{RULES_CHECK}/{name}": (f"{one.generation}/{one.is_outdated}", rules_result(name, one))
            for name, one in status.pipelines.items()
        },
        **{
            f"{NEGATIVE_CHECK}/{name}": (f"{one.count}", negative_result(name, one))
            for name, one in status.negative.items()
        },
    }
    for check, (facts, result) in results.items():
        if remembered.get(check) != {"facts": facts}:
            events.append(evaluation(result))
            remembered[check] = {"facts": facts}
    for log in LOGS:
        name, counts = f"{DUPLICATES_CHECK}/{log.name}", duplicates(status, log)
        if remembered.get(name) != counts:
            events.append(evaluation(duplicates_result(log, counts, remembered.get(name, {}))))
            remembered[name] = counts
    return events, json.dumps(remembered)


def overlap_result(overlap: Findings) -> dg.AssetCheckResult:
    """Whether every sale id belongs to one source, as far as the join has read the log."""
    return dg.AssetCheckResult(
        asset_key=key(datasets.topic(SALES_EVENTS)),
        check_name=OVERLAP_CHECK,
        passed=overlap.count == 0,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{overlap.count} sale ids are in several sources, and no payment is joined to them",
        metadata={"sale_ids": overlap.count, "first": ", ".join(overlap.first)},
    )


def negative_result(pipeline: str, negative: Findings) -> dg.AssetCheckResult:
    """Whether no group of a pipeline had more taken back than was counted."""
    return dg.AssetCheckResult(
        asset_key=key(datasets.view(pipeline)),
        check_name=NEGATIVE_CHECK,
        passed=negative.count == 0,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{negative.count} groups have a count below 0: a source reversed what it never sold",
        metadata={"groups": negative.count, "first": ", ".join(negative.first)},
    )


def duplicates(status: PlatformStatus, log: Topic) -> dict[str, int]:
    """By pipeline that has dropped any: how many events of the log its active generation dropped as duplicates."""
    counts = {name: one.duplicates.get(log.name, 0) for name, one in status.pipelines.items()}
    return {name: count for name, count in counts.items() if count}


def duplicates_result(
    log: Topic, counts: Mapping[str, int], before: Mapping[str, int]
) -> dg.AssetCheckResult:
    """Whether no pipeline has dropped more events of the log than it had before."""
    more = {name: count - before.get(name, 0) for name, count in counts.items()}
    grown = {name: count for name, count in more.items() if count > 0}
    dropped = ", ".join(f"{count} of {name}" for name, count in grown.items()) or "none"
    return dg.AssetCheckResult(
        asset_key=key(datasets.topic(log)),
        check_name=DUPLICATES_CHECK,
        passed=not grown,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"New events of {log.name} that were dropped as duplicates, and count nowhere: {dropped}",
        metadata={"dropped": dg.MetadataValue.json(dict(counts))},
    )


def future_result(future: Findings) -> dg.AssetCheckResult:
    """Whether every sale is of a time that has come, as far as the join has read the log."""
    return dg.AssetCheckResult(
        asset_key=key(datasets.topic(SALES_EVENTS)),
        check_name=FUTURE_CHECK,
        passed=future.count == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{future.count} sales are dated more than an hour from now; each is counted in its own window",
        metadata={"sales": future.count, "first": ", ".join(future.first)},
    )


def rules_result(pipeline: str, status: PipelineStatus) -> dg.AssetCheckResult:
    """Whether the active generation's windows are those that a new one would have."""
    description = "the active generation counts by the rules that its time zone has now"
    if status.is_outdated:
        description = (
            f"the time zone has other rules by now than g{status.generation} counts by; a replay that names the zone "
            f"takes them over: `electrored replay {pipeline} --time-zone ... --reason ...`"
        )
    return dg.AssetCheckResult(
        asset_key=key(datasets.view(pipeline)),
        check_name=RULES_CHECK,
        passed=not status.is_outdated,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
    )


def _is_due(observed: Observed, last: Mapping[str, Any] | None, now: datetime) -> bool:
    if last is None or last["facts"] != observed.facts:
        return True
    if not observed.is_result or _text(observed.watermark) == last["watermark"]:
        return False
    return now - datetime.fromisoformat(last["at"]) >= HEARTBEAT


def observations(status: PlatformStatus) -> Iterator[Observed]:
    """Every asset with a known state."""
    source = status.sources.get(POSTGRES_SOURCE)
    if source is not None:
        metadata = {
            "next_seq": source.next_seq,
            "frontier": _moment(source.frontier),
            "position": dg.MetadataValue.json(json.loads(source.detail)),
        }
        yield Observed(datasets.SALES, str(source.next_seq), metadata)
    for topic in PUBLIC:
        end = status.topics[topic.name]
        # Positions are written every second; what was captured is what may be new in them.
        sequences = {name: source.next_seq for name, source in sorted(status.sources.items())}
        facts = json.dumps(sequences) if topic == SOURCE_POSITIONS else str(end)
        yield Observed(datasets.topic(topic), facts, {"end_offset": end, "partitions": topic.partitions})
    for name, pipeline in status.pipelines.items():
        yield from _of_pipeline(status, name, pipeline)


def _of_pipeline(status: PlatformStatus, name: str, pipeline: PipelineStatus) -> Iterator[Observed]:
    # What may change the rows; the rows themselves are not read, of which there may be very many.
    log_end = sum(status.topics[source.name] for source in datasets.INPUTS[name])
    behind = {"partials": pipeline.behind("combine"), "state": pipeline.behind("merge")}
    for role in ROLES:
        topic = datasets.internal_topic(name, pipeline.generation, role)
        metadata = {
            "topic": topic.name,
            "generation": pipeline.generation,
            "end_offset": status.topics[topic.name],
            "writer_offsets_behind": behind[role],
            "watermark": _moment(pipeline.watermark),
        }
        yield Observed(datasets.internal(name, role), f"{pipeline.generation}/{log_end}", metadata)
    metadata = {
        "generation": pipeline.generation,
        "promotion_number": pipeline.promotion_number,
        "watermark": _moment(pipeline.watermark),
        "sink_offsets_behind": pipeline.behind("sink"),
    }
    facts = f"{pipeline.generation}/{pipeline.promotion_number}/{log_end}"
    yield Observed(datasets.view(name), facts, metadata, is_result=True, watermark=pipeline.watermark)


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _moment(moment: datetime | None) -> dg.MetadataValue[Any] | None:
    return dg.MetadataValue.timestamp(moment) if moment is not None else None
