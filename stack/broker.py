"""`python -m stack.broker FOLDER JAVA…`: becomes the Kafka broker; one that was killed is fenced first.

After a kill the cluster's metadata still has the broker as the living leader of every partition. It loads its
transactions, then loses all leaders when its former session runs out, and takes partitions that have no leader for
deleted ones (KAFKA-20734, seen in 4.3.1, in 4.4.0 too): it skips the markers of every transaction that was just being
ended. Those stay open for ever. So the controller runs alone for a moment and fences the dead broker; the new one then
starts without partitions and leads them from when it is whole.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType

# About 3 s on a machine with nothing else to do.
FENCING_SECONDS = 60.0
STOP_SECONDS = 10.0
# No broker sends a heartbeat, so the session may be short.
OVERRIDES = {
    "process.roles": "controller",
    "broker.session.timeout.ms": "100",
    "broker.heartbeat.interval.ms": "50",
}
LOG4J = """\
status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %-5p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.controller.name = org.apache.kafka.controller
logger.controller.level = info
"""
_REGISTRATION = re.compile(
    r"(?:RegisterBrokerRecord|BrokerRegistrationChangeRecord)\(.*\bfenced=(true|false|-?\d)"
)
_IS_FENCED = {"true": True, "1": True, "false": False, "-1": False}
_PR_SET_PDEATHSIG = 1
# Of a Prometheus agent.
AGENT_OPTION = "-javaagent:"


def was_killed(folder: Path) -> bool:
    """Whether the last broker on this folder ended without a clean shutdown."""
    data = folder / "data"
    return (data / "__cluster_metadata-0").exists() and not (data / ".kafka_cleanshutdown").exists()


def fence(folder: Path, java: Sequence[str]) -> None:
    """Let the controller alone fence the broker that was killed, and stop it again.

    Repeatable: killed in the middle, the next start does it again. Raises SystemExit with the controller's last lines.
    """
    _write_configuration(folder)
    # Without the agent, whose port is the broker's.
    options = [option for option in java[:-2] if not option.startswith(AGENT_OPTION)]
    options.append("-XX:TieredStopAtLevel=1")
    at = next(i for i, option in enumerate(options) if option.startswith("-Dlog4j2.configurationFile="))
    options[at] = f"-Dlog4j2.configurationFile={folder / 'fencing.log4j2.properties'}"
    controller = subprocess.Popen(
        [*options, java[-2], str(folder / "fencing.properties")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        controller.kill()
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    deadline = threading.Timer(FENCING_SECONDS, controller.kill)
    deadline.start()
    try:
        assert controller.stdout is not None
        output = _until_fenced(controller.stdout)
    finally:
        controller.terminate()
        try:
            controller.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # The fencing is in the metadata's log, which survives a kill.
            controller.kill()
            controller.communicate()
        deadline.cancel()
    if output:
        raise SystemExit(
            "\n".join([*output[-20:], f"the killed broker of {folder} could not be fenced; see above"])
        )


def _write_configuration(folder: Path) -> None:
    lines = (folder / "server.properties").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines)
    listeners = settings["listeners"].split(",")
    settings["listeners"] = next(address for address in listeners if address.startswith("CONTROLLER://"))
    del settings["advertised.listeners"]
    settings |= OVERRIDES
    (folder / "fencing.properties").write_text(
        "".join(f"{name}={value}\n" for name, value in settings.items())
    )
    (folder / "fencing.log4j2.properties").write_text(LOG4J)


def _until_fenced(lines: Iterable[str]) -> list[str]:
    """Read the controller's log until no broker is registered unfenced: then the result is empty.

    Otherwise the result is the whole log of the controller, which ended.
    """
    output: list[str] = []
    fenced, active = True, False
    for line in lines:
        output.append(line.rstrip())
        if registration := _REGISTRATION.search(line):
            fenced = _IS_FENCED.get(registration[1], fenced)
        # The log was read to its end by then, so that the registration is the last one.
        active = active or "Activated periodic tasks" in line
        if active and fenced:
            return []
    return output or ["the controller ended without output"]


def _end_with_parent() -> None:
    """A controller that outlived its parent would hold the folder's lock against the next start."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    folder, java = Path(sys.argv[1]), sys.argv[2:]
    if was_killed(folder):
        print("the broker was killed: it is fenced before it starts again", flush=True)
        fence(folder, java)
    os.execv(java[0], java)


if __name__ == "__main__":
    main()
