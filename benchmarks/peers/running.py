"""Running: peers are installed, told to put, and measured from outside, as their own command starts them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import measuring
from benchmarks.measuring import Figures
from benchmarks.running import FailedError, responder, started, until

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    """A library: what pip installs, its worker's command, how many messages take long enough, the least Python."""

    packages: tuple[str, ...]
    script: str
    worker: str
    messages: int = 1_000
    least: tuple[int, int] = (3, 10)


PEERS = {
    "the ancestor": Peer(("sqspipes==0.3.3",), "ancestor_words", "python ancestor_words.py worker"),
    "Celery": Peer(
        ("celery[sqs]",),
        "celery_words",
        "celery -A celery_words worker -P threads -c 32 --without-gossip --without-mingle --without-heartbeat",
    ),
    "dramatiq-sqs": Peer(
        ("dramatiq", "dramatiq-sqs"), "dramatiq_words", "dramatiq dramatiq_words -p 1 -t 32"
    ),
    "taskiq-aio-sqs": Peer(
        ("taskiq-aio-sqs", "taskiq-pipelines", "boto3"),
        "taskiq_words",
        "taskiq worker taskiq_words:broker --workers 1 --max-threadpool-threads 32",
    ),
    "onestep-sqs": Peer(("onestep-sqs",), "onestep_words", "python onestep_words.py worker", 2_000),
    "fanferro": Peer(("fanferro",), "fanferro_words", "python fanferro_words.py worker", 6_000, (3, 12)),
}


def installed() -> Mapping[str, Callable[[], Figures]]:
    """Return the peers that can be measured; say why others cannot."""
    found: dict[str, Callable[[], Figures]] = {}
    for name, peer in PEERS.items():
        folder = _cache() / peer.script
        said = _install(folder, peer)
        if said:
            print(f"{name}: left out, {said}\n")
        else:
            found[f"{name} {_version(folder, peer)}"] = partial(measured, peer, folder / "bin")
    return found


def measured(peer: Peer, programs: Path) -> Figures:
    """Let a peer do the busy job; its CPU time and the seconds count from its first receive."""
    with tempfile.TemporaryDirectory(prefix="peer-") as folder, responder() as server:
        written = Path(folder, "lines")
        written.touch()
        paths = os.pathsep.join(map(str, (HERE, HERE.parent / "programs")))
        environment = {**server.environment, "BENCHMARK_LINES": str(written), "PYTHONPATH": paths}
        _put(peer, programs, environment)
        server.reset(0.01)
        name, *arguments = peer.worker.split()
        log = Path(folder, "log")
        command = [str(programs / name), *arguments]
        with log.open("w") as said, started(command, environment, cwd=HERE, output=said) as process:
            until(lambda: bool(server.counts()), 60, every=0.01)
            begun, cpu = time.monotonic(), _cpu(process.pid)
            done = until(lambda: written.read_bytes().count(b"\n") >= peer.messages, 300)
            seconds, cpu = time.monotonic() - begun, _cpu(process.pid) - cpu
            total = measuring.requests(measuring.settled(server))
        if not done:
            raise FailedError(f"not done in 300 s: {log.read_text()[-500:]}")
    return {
        measuring.ITEMS: peer.messages / seconds,
        **measuring.per_task(total, peer.messages),
        measuring.CPU: cpu / peer.messages / measuring.TASKS * 1000,
    }


def _cpu(process: int) -> float:
    """Return the CPU seconds of a process and all that it started."""
    import psutil

    found = 0.0
    one = psutil.Process(process)
    for each in (one, *one.children(recursive=True)):
        times = each.cpu_times()
        found += times.user + times.system
    return found


def _put(peer: Peer, programs: Path, environment: Mapping[str, str]) -> None:
    command = [str(programs / "python"), f"{peer.script}.py", str(peer.messages)]
    done = subprocess.run(
        command, cwd=HERE, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise FailedError(f"nothing was put: {done.stderr[-500:]}")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sqspipes-benchmarks"


def _install(folder: Path, peer: Peer) -> str:
    """Make a peer's virtual environment, unless it is there; return what went wrong."""
    if (folder / "installed").exists():
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    steps = (
        [_python(peer), "-m", "venv", str(folder)],
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *peer.packages],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            return f"it cannot be installed: {done.stderr.strip()[-300:]}"
    (folder / "installed").touch()
    return ""


def _python(peer: Peer) -> str:
    """Return this Python, or another one that is new enough."""
    if sys.version_info >= peer.least:
        return sys.executable
    found = (shutil.which(f"python3.{minor}") for minor in (14, 13, 12))
    return next((path for path in found if path), sys.executable)


def _version(folder: Path, peer: Peer) -> str:
    """Return the version of the package that the table names."""
    name = peer.packages[-1 if peer.script == "dramatiq_words" else 0].partition("[")[0].partition("==")[0]
    code = f"import importlib.metadata as metadata; print(metadata.version({name!r}))"
    done = subprocess.run([str(folder / "bin" / "python"), "-c", code], capture_output=True, text=True)
    return done.stdout.strip()
