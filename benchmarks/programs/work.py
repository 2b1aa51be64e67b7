"""Work: what the tasks of all programs do, and how a program is told to go and tells what it found.

A program is called as ``python -m benchmarks.programs.NAME FUNCTION {"option": value}``. It prints a line of JSON
when it is ready, begins when it reads a line, and prints a line of JSON at the end.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

#: Seconds after which what has not gone through is given up.
LONGEST = 600.0


def words(count: int) -> Iterator[str]:
    """Yield different words."""
    return (f"{number * 7919 % 1_000_003:06d}-benchmark-{number}" for number in range(count))


def last(seconds: float, kind: str, word: str) -> None:
    """Let a call ``sleep`` so many seconds, ``burn`` so many of the CPU's, or, ``mixed``, sleep once in a hundred."""
    if kind == "burn":
        burn(seconds)
    elif kind == "sleep" or int(word.rpartition("-")[2]) % 100 == 0:
        time.sleep(seconds)  # the work itself


def vowels(word: str, seconds: float = 0.0, kind: str = "sleep") -> list[str]:
    """Return a word and its vowels, after the seconds that the work takes."""
    if seconds:
        last(seconds, kind, word)
    return [word, "".join(letter for letter in word if letter in "aeiou")]


def count(pair: list[str], seconds: float = 0.0, kind: str = "sleep") -> tuple[str, int]:
    """Return a word and how many vowels it has, after the seconds that the work takes."""
    if seconds:
        last(seconds, kind, pair[0])
    return pair[0], len(pair[1])


def nap(seconds: float) -> None:
    """Take so many seconds, and no CPU."""
    time.sleep(seconds)  # the work itself


def burn(seconds: float) -> None:
    """Keep a core busy for so many seconds of its time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))


class Sink:
    """Counts different values, until there are enough; with ``lines`` each is a line in a file, as with the peers."""

    def __init__(self, enough: int, *, lines: bool = False) -> None:
        self._enough = enough
        self._file = _nameless() if lines else None
        self._seen: set[str] = set()
        self._done = threading.Event()

    def add(self, value: str) -> None:
        """Count a value."""
        if self._file is not None:
            os.write(self._file, f"{value}\n".encode())
        self._seen.add(value)
        if len(self._seen) >= self._enough:
            self._done.set()

    def wait(self) -> int:
        """Wait for enough values; return how many there were."""
        self._done.wait(LONGEST)
        return len(self._seen)


def _nameless() -> int:
    """Open a file that is gone when the process is."""
    file, path = tempfile.mkstemp()
    os.unlink(path)
    return file


class Times:
    """Gathers how long messages took, from put to call and from call to call, until there are enough."""

    def __init__(self, enough: int) -> None:
        self._sink = Sink(enough)
        self._calls: list[float] = []
        self._hops: list[float] = []

    def called(self, put: float) -> float:
        """Note the first call for what was put at a time; return the time."""
        now = time.time()
        if put:
            self._calls.append(now - put)
        return now

    def hopped(self, put: float, left: float) -> None:
        """Note the second call, for what the first one let go at a time."""
        if put:
            self._hops.append(time.time() - left)
            self._sink.add(str(put))

    def wait(self) -> dict[str, list[float]]:
        """Wait for enough messages; return their times in seconds."""
        self._sink.wait()
        return {"calls": self._calls, "hops": self._hops}


def at_a_rate(put: Callable[[float], object], rate: float, messages: int, threads: int = 8) -> None:
    """Call ``put`` with the time, ``rate`` times a second, from threads that take turns."""
    begun, never = time.time() + 0.05, threading.Event()

    def turns(first: int) -> None:
        for turn in range(first, messages, threads):
            never.wait(max(0.0, begun + turn / rate - time.time()))
            put(time.time())

    workers = [threading.Thread(target=turns, args=(first,), name=f"put-{first}") for first in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def tell(found: Mapping[str, Any]) -> None:
    """Print a line of JSON."""
    print(json.dumps(found), flush=True)


def go(**told: Any) -> Callable[[], dict[str, float]]:
    """Tell that the program is ready, and wait for the word; return what gives all that was spent since."""
    tell(told)
    sys.stdin.readline()
    begun, cpu, changes = time.perf_counter(), time.process_time(), changes_of_threads()
    return lambda: {
        "seconds": time.perf_counter() - begun,
        "cpu": time.process_time() - cpu,
        "changes": changes_of_threads() - changes,
        "threads": threading.active_count(),
    }


def changes_of_threads() -> int:
    """Return how often a thread of this process has given up the CPU by itself; 0 where nobody counts."""
    try:
        import resource
    except ModuleNotFoundError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def main(*functions: Callable[..., None]) -> None:
    """Call one of the functions as the command line says; with ``one_core`` all threads share the last core."""
    options = json.loads(sys.argv[2])
    if options.pop("one_core", False):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    {function.__name__: function for function in functions}[sys.argv[1]](**options)
    # Last deletes may be under way: whoever started this program ends it.
    sys.stdin.read()
