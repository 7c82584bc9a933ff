"""Ports: offsets, free ones, and the process that has taken one."""

from __future__ import annotations

import os
import socket
from dataclasses import astuple

import pytest

from stack.errors import StackError
from stack.ports import LOOPBACK, Ports, answers, free, require_free


def test_an_offset_moves_every_port() -> None:
    moved = zip(astuple(Ports()), astuple(Ports.with_offset(700)), strict=True)
    assert all(there == here + 700 for here, there in moved)


def test_default_ports_are_the_documented_ones() -> None:
    ports = Ports()
    documented = (9092, 8081, 5432, 8082, 3001)
    assert (ports.kafka, ports.registry, ports.postgres, ports.api, ports.dagster) == documented


def test_free_ports_differ_and_nothing_listens_there() -> None:
    ports = free(20)
    assert len(set(ports)) == 20
    assert not any(answers(port) for port in ports)


def test_a_taken_port_is_reported_with_its_owner() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError) as error:
            require_free(port, "the API")
    assert str(error.value).startswith(f"port {port} for the API is taken by ")
    assert f"(pid {os.getpid()})" in str(error.value)
    assert "--port-offset" in error.value.remedy
