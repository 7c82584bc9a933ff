"""Shared definitions: schemas, topics, results tables, settings, and the rules for texts, numbers and times."""

import os

# Before polars is imported anywhere: blocks are small, and processes scale. With two threads every operation waits
# until another thread is scheduled: beside four busy processes on two cores one commit of combine took 73 ms,
# with one thread 4.9 ms, as on a quiet machine.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
