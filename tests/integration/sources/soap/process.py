"""A poll as `python -m sources soap poll` runs it, but on a test's own topics; it kills itself at a set commit.

TEST_KILL is `before N` or `after N`: kill -9 just before or just after the Nth commit, with every record sent.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[4]))

from confluent_kafka import Producer

import sources.__main__ as process
from contracts.topics import DEAD_LETTERS, PAYMENT_CONFIRMATIONS, SOURCE_POSITIONS
from kafka_client import clients
from sources.soap import poll

if told := os.environ.get("TEST_KILL"):
    when, number = told.split()

    class Killing(Producer):
        left = int(number)

        def commit_transaction(self, *arguments: Any) -> None:
            self.left -= 1
            if self.left == 0 and when == "before":
                self.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            super().commit_transaction(*arguments)
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    vars(clients)["Producer"] = Killing
if rows := os.environ.get("TEST_PAGE"):
    defaults: Any = poll.poll.__kwdefaults__
    defaults["page"] = int(rows)
confirmations, positions, dead_letters = os.environ["TEST_TOPICS"].split(",")
vars(process).update(
    PAYMENT_CONFIRMATIONS=replace(PAYMENT_CONFIRMATIONS, name=confirmations),
    SOURCE_POSITIONS=replace(SOURCE_POSITIONS, name=positions),
    DEAD_LETTERS=replace(DEAD_LETTERS, name=dead_letters),
)
process.app(["soap", "poll", *os.environ.get("TEST_ARGUMENTS", "").split()])
