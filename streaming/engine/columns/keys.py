"""Keys of groups, over columns."""

from __future__ import annotations

import polars as pl

from streaming.engine.pipeline import Pipeline


def group_keys(groups: pl.DataFrame, pipeline: Pipeline) -> list[bytes]:
    """The key of each group: window start and group columns, separated by `|`, with `\\` and `|` escaped.

    Without windows the first part is empty: no key equals that of a watermark or of the local store's metadata.
    """
    start = (
        pl.lit("")
        if pipeline.calendar is None
        else pl.from_epoch("window_start", time_unit="us").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    )
    parts = [
        pl.col(name).str.replace_all("\\", "\\\\", literal=True).str.replace_all("|", "\\|", literal=True)
        for name in pipeline.group_by
    ]
    return [
        key.encode()
        for key in groups.select(pl.concat_str([start, *parts], separator="|").alias("key"))["key"]
    ]
