"""Ports of the processes: fixed ones plus an offset, free ones for tests, and the owner of one that is taken."""

from __future__ import annotations

import random
import socket
from dataclasses import asdict, dataclass, fields

import psutil

from stack.errors import StackError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """The ports of one stack; all of them on the loopback address."""

    kafka: int = 9092
    kafka_controller: int = 9093
    registry: int = 8081
    registry_management: int = 8091
    postgres: int = 5432
    api: int = 8082
    dagster: int = 3001
    payments: int = 8080
    dagster_code: int = 4266
    kafka_metrics: int = 9404
    # One port for each of our processes from here on.
    metrics: int = 9200

    @classmethod
    def with_offset(cls, offset: int) -> Ports:
        base = asdict(cls())
        return cls(**{name: port + offset for name, port in base.items()})

    @classmethod
    def free(cls) -> Ports:
        """Ports that are free now, for a stack of a test."""
        names = [field.name for field in fields(cls)]
        return cls(**dict(zip(names, free(len(names)), strict=True)))


def free(count: int) -> list[int]:
    """Free ports below the ephemeral range, which the system uses for outgoing connections."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20_000, 32_000)
        if port not in ports and is_free(port):
            ports.append(port)
    return ports


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def require_free(port: int, purpose: str) -> None:
    """Raises StackError that names the process that has the port."""
    if not is_free(port):
        raise StackError(
            f"port {port} for {purpose} is taken by {_owner(port)}",
            "end that process, or start with another --port-offset",
        )


def _owner(port: int) -> str:
    for connection in psutil.net_connections("tcp"):
        listens = (
            connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        )
        if listens and connection.pid:
            return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "a process of another user"
