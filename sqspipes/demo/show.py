"""A census of Python's standard library: a real pipe on this machine, without any account.

``python -m sqspipes.demo`` puts the name of every source file of the standard library into a pipe of three
tasks on the embedded broker, in a temporary file. Two worker processes parse and count, this one adds up. In
the middle one worker is killed with -9 and another started. In the end the totals are compared with those of
a plain loop over the same functions, and the ledger says what became of every file.
``python -m sqspipes.demo json email`` counts these packages only.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqspipes import Summary, TaskClient
from sqspipes.demo.census import (
    COLUMNS,
    Census,
    Ledger,
    build_client,
    library,
    package_of,
    plain_loop,
    reached,
    read_ledger,
    source_files,
)


def start_worker(broker: str, journal: Path, tasks: str, *options: str) -> subprocess.Popen[bytes]:
    """Start a process that runs these tasks; it ends when its standard input does, so with this process."""
    command = [sys.executable, "-m", "sqspipes.demo", "--worker", tasks, "--broker", broker]
    return subprocess.Popen(
        [*command, "--journal", str(journal), *options],
        stdin=subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C is for this process, which ends its workers
    )


def work(options: argparse.Namespace) -> int:
    """Run the chosen tasks until they are drained, or told to stop, or the parent process has ended."""
    with build_client(options.broker, options.journal) as client:

        def stop_with_parent() -> None:
            os.read(0, 1)
            client.stop()

        threading.Thread(target=stop_with_parent, name="sqspipes demo parent", daemon=True).start()
        client.run(options.worker.split(","), drain=options.drain)
    return 0


@contextlib.contextmanager
def workers_of(broker: str, journal: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Give two worker processes, and end those that are left however the block ends."""
    workers: list[subprocess.Popen[bytes]] = []
    try:
        workers += (start_worker(broker, journal, "parse,count", "--drain") for _ in range(2))
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def take_census(broker: str, folder: Path, files: Sequence[str], screen: Screen) -> tuple[Census, Ledger]:
    """Put the files, let the workers work, kill one of them half-way; return what came out and the ledger."""
    census = Census(folder)
    client = build_client(broker, folder, census.add_up)
    with client, screen.live(client, Journal(folder, client)):
        put = client.put_many(files, id=str)
        with client.start("add_up") as run, workers_of(broker, folder) as workers:

            def watch(goal: int) -> None:
                while len(census.files) < goal and any(worker.poll() is None for worker in workers):
                    with contextlib.suppress(TimeoutError):  # anything else ends the demo
                        run.wait(0.1)
                    screen.progress(len(census.files), len(files))

            watch(put // 2)
            workers[0].kill()
            workers.append(start_worker(broker, folder, "parse,count", "--drain"))
            screen.say(f"  kill -9 of worker {workers[0].pid}; worker {workers[2].pid} takes over")
            watch(put + 1)  # more than there are: until the workers have seen their queues empty
            if any(worker.wait() for worker in workers[1:]):
                raise SystemExit("a worker process failed; its error is above")
        client.run("add_up", drain=True)
        screen.progress(len(census.files), len(files))
    return census, read_ledger(folder, put)


# What people see


class Journal:
    """What all processes have written down, as the live view reads a run."""

    outage: str | None = None  # a file of this machine has none

    def __init__(self, folder: Path, client: TaskClient) -> None:
        self._folder = folder
        self._tasks = [task.name for task in client.tasks]

    @property
    def by_task(self) -> dict[str, Summary]:
        """How many files have reached each task."""
        counts = reached(self._folder)
        return {task: Summary("stopped", counts[task], 0, 0) for task in self._tasks}


class Screen:
    """Prints; progress is a live view on a terminal, and a line per quarter elsewhere.

    Where the command line's packages are missing, a terminal has one line that is rewritten.
    """

    def __init__(self) -> None:
        self._end = ""
        self._quarter = 0
        self._is_live = False

    @contextlib.contextmanager
    def live(self, client: TaskClient, journal: Journal) -> Iterator[None]:
        """Show each task while the block runs, below what is said meanwhile, if this is a terminal."""
        if not sys.stdout.isatty() or not all(map(importlib.util.find_spec, ("click", "rich"))):
            yield
            return
        from sqspipes.console import tables
        from sqspipes.console.live import shown

        self._is_live = True
        try:
            with shown(client, journal, tables.console()):
                yield
        finally:
            self._is_live = False

    def say(self, text: str) -> None:
        """Print a line of its own."""
        print(self._end + text, flush=True)
        self._end = ""

    def progress(self, done: int, total: int) -> None:
        """Show how many files are through."""
        if self._is_live:
            return
        quarter = 4 * done // total
        line = f"  [{'#' * (40 * done // total):.<40}] {done:,} of {total:,} files"
        if sys.stdout.isatty():
            print("\r" + line, end="", flush=True)
            self._end = "\n"
        elif self._quarter != quarter:
            self.say(line)
        self._quarter = quarter


def show_table(screen: Screen, packages: dict[str, Counter[str]]) -> None:
    """Print the largest packages, and the sum of all."""
    screen.say(f"\n{'package':<20}" + "".join(f"{name:>11}" for name in COLUMNS))
    every = (f"all {len(packages)}", sum(packages.values(), Counter[str]()))
    for name, counts in [*list(packages.items())[:10], every]:
        screen.say(f"{name:<20}" + "".join(f"{counts[column]:>11,}" for column in COLUMNS))


def show_ledger(screen: Screen, ledger: Ledger) -> None:
    """Print the ledger, and how each figure was found."""
    screen.say(f"\nput              {ledger.put:>7,}  files that the first queue accepted")
    screen.say(f"handed on        {ledger.handed_on:>7,}  results that arrived at count and at add_up")
    screen.say(f"lost             {ledger.lost:>7,}  files put that add_up never saw")
    screen.say(f"handed on twice  {ledger.twice:>7,}  second results of one file at the same task")
    screen.say(
        f"calls repeated   {ledger.repeated:>7,}  calls begun by the killed worker and not acknowledged"
    )


def demo(packages: Sequence[str]) -> int:
    """Take the census with the pipe and with a plain loop; return 0 if all is as promised."""
    screen, files = Screen(), source_files(packages)
    for package in packages:
        if not any(package_of(file) == package for file in files):
            raise SystemExit(f"Error: {library()} has no package {package!r}")
    if len(files) < 2:
        raise SystemExit(f"Error: too few source files of {', '.join(packages)} in {library()}")
    screen.say(f"A census of {library()}: put -> parse -> count -> add_up")
    with tempfile.TemporaryDirectory(prefix="sqspipes-") as name:
        broker = f"sqlite:///{Path(name, 'pipe.db').as_posix()}"
        screen.say(f"{len(files):,} files, two worker processes, on {broker}\n")
        began = time.monotonic()
        census, ledger = take_census(broker, Path(tempfile.mkdtemp(dir=name)), files, screen)
        middle = time.monotonic()
        screen.say(f"  {middle - began:.1f} s; now the same functions in a plain loop ...")
        same = census.files == plain_loop(files, tempfile.mkdtemp(dir=name)).files
        screen.say(
            f"  {time.monotonic() - middle:.1f} s: its totals are {'the same' if same else 'DIFFERENT'}"
        )
    show_table(screen, census.packages())
    show_ledger(screen, ledger)
    return 0 if same and not ledger.lost and not ledger.twice else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo, or one of its workers; ``arguments`` are those of the command line by default."""
    parser = argparse.ArgumentParser(prog="python -m sqspipes.demo")
    parser.add_argument("packages", nargs="*", help="packages of the standard library, default all")
    worker = parser.add_argument_group("a worker process, as the demo starts it")
    worker.add_argument("--worker", metavar="TASKS", help="the tasks to run, comma-separated")
    worker.add_argument("--drain", action="store_true", help="end when their queues are empty")
    worker.add_argument("--broker", metavar="URL")
    worker.add_argument("--journal", metavar="FOLDER", help="where calls are written down")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # what Python thinks of the files that are parsed
    try:
        return work(options) if options.worker else demo(options.packages)
    except KeyboardInterrupt:
        if not options.worker:
            print("\ninterrupted; nothing is left behind")
        return 130
