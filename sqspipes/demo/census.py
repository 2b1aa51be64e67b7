"""The census of Python's standard library: the pipe of the demo, on any broker, and its ledger.

::

    put -> parse -> count -> add_up
"""

from __future__ import annotations

import ast
import contextlib
import os
import sysconfig
import threading
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqspipes import TaskClient

# The three functions. Each call is written down when it begins, for the ledger, and gives its result a stamp
# that no other call gives.


def parse(file: str, journal: str) -> dict[str, Any]:
    """Read one source file and list the kinds of what it defines."""
    write_down(journal, "parse", file, stamp="put")
    source = (library() / file).read_bytes()
    kinds = []
    # A few files of Python's own tests are broken on purpose: they have lines and no more.
    with contextlib.suppress(SyntaxError, ValueError):
        kinds = [type(node).__name__ for node in ast.walk(ast.parse(source))]
    defined = [kind for kind in kinds if kind.endswith("Def")]
    return {"file": file, "lines": len(source.splitlines()), "defined": defined, "stamp": uuid.uuid4().hex}


def count(parsed: dict[str, Any], journal: str) -> dict[str, Any]:
    """Count the functions and classes of one file."""
    write_down(journal, "count", parsed["file"], parsed["stamp"])
    kinds = Counter(parsed["defined"])
    return {
        "file": parsed["file"],
        "lines": parsed["lines"],
        "functions": kinds["FunctionDef"] + kinds["AsyncFunctionDef"],
        "classes": kinds["ClassDef"],
        "stamp": uuid.uuid4().hex,
    }


COLUMNS = ("files", "lines", "functions", "classes")


class Census:
    """The counts of all files so far; its ``add_up`` is the last task of the pipe."""

    def __init__(self, journal: str | Path) -> None:
        self.journal = str(journal)
        self.files: dict[str, Counter[str]] = {}

    def add_up(self, counted: dict[str, Any]) -> None:
        """Add one file. Functions run at least once, so this adds by name: a second call changes nothing."""
        write_down(self.journal, "add_up", counted["file"], counted["stamp"])
        self.files[counted["file"]] = Counter({"files": 1} | {key: counted[key] for key in COLUMNS[1:]})

    def packages(self) -> dict[str, Counter[str]]:
        """Return the totals of each package, the largest first."""
        totals: dict[str, Counter[str]] = defaultdict(Counter)
        for file, counts in self.files.items():
            totals[package_of(file)].update(counts)
        return dict(sorted(totals.items(), key=lambda item: (-item[1]["lines"], item[0])))


def build_client(
    broker: str,
    journal: str | Path,
    add_up: Callable[[Any], Any] | None = None,
    *,
    domain: str = "census",
    **options: Any,
) -> TaskClient:
    """Return the pipe's client on any broker; without ``add_up`` it can feed the last task, not run it."""
    # What a killed process held comes back after its lease, so the demo takes the shortest there is.
    return TaskClient(domain, broker=broker, lease=5.0, **options).register_tasks(
        [
            # One worker: parsing keeps the interpreter's lock, and ast.parse is not safe in several threads of
            # some Pythons (https://github.com/python/cpython/issues/106905). Processes are what makes it faster.
            {"method": parse, "args": (str(journal),)},
            {"method": count, "args": (str(journal),)},
            {"method": add_up, "name": "add_up"},
        ]
    )


def plain_loop(files: Sequence[str], journal: str | Path) -> Census:
    """Take the census without a pipe: the same functions, one file after the other."""
    census = Census(journal)
    for file in files:
        census.add_up(count(parse(file, census.journal), census.journal))
    return census


# The library's files


def library() -> Path:
    """Return the folder of Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def source_files(packages: Sequence[str] = ()) -> list[str]:
    """Return the names of its source files, below its folder; of some packages only, if any are named."""
    root = library()
    folders = [
        root,
        *(path for path in root.iterdir() if path.is_dir() and not path.name.endswith("-packages")),
    ]
    found = [path for folder in folders for path in folder.glob("*.py" if folder == root else "**/*.py")]
    files = sorted(path.relative_to(root).as_posix() for path in found)
    return [file for file in files if not packages or package_of(file) in packages]


def package_of(file: str) -> str:
    """Return the package that a file belongs to."""
    first, slash, _ = file.partition("/")
    return first if slash else "(single modules)"


# The ledger


@dataclass(frozen=True)
class Ledger:
    """What became of the files, as the functions themselves saw it."""

    put: int  #: files that the first queue accepted
    handed_on: int  #: results that arrived at the next task
    lost: int  #: files put that add_up never saw
    twice: int  #: second results of one file that arrived at the same task
    repeated: int  #: calls of one task for one file beyond the first


def write_down(journal: str, task: str, file: str, stamp: str) -> None:
    """Note that a call begins; the line is in the system's hands at once and outlives a kill -9."""
    name = f"{os.getpid()}-{threading.get_ident()}.calls"  # a thread's own file needs no lock
    with open(Path(journal, name), "a", encoding="utf-8") as calls:
        calls.write(f"{task}\t{file}\t{stamp}\n")


def read_ledger(journal: str | Path, put: int) -> Ledger:
    """Count the calls that were written down, of all processes, the killed one included."""
    calls = read_calls(journal)
    return Ledger(
        put=put,
        handed_on=sum(1 for task, _ in calls if task != "parse"),
        lost=put - sum(1 for task, _ in calls if task == "add_up"),
        twice=sum(copies(seen) - 1 for seen in calls.values()),
        repeated=sum(len(seen) - 1 for seen in calls.values()),
    )


def reached(journal: str | Path) -> Counter[str]:
    """Count the files that each task was called for so far, however often."""
    return Counter(task for task, _ in read_calls(journal))


def read_calls(journal: str | Path) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Return the process and the stamp of each call, by its task and file."""
    calls: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for path in Path(journal).glob("*.calls"):
        process = path.name.partition("-")[0]
        for line in path.read_text(encoding="utf-8").splitlines():
            task, file, stamp = line.split("\t")
            calls[task, file].append((process, stamp))
    return calls


def copies(seen: list[tuple[str, str]]) -> int:
    """Return how many copies of a message reached a task, from the process and the stamp of each call.

    One message may be called twice, by a process that was killed and by the one that took over: both see the
    same stamp. Different stamps are results of different calls, all handed on. A process that lives is not
    given a message again. So there were as many copies as stamps, or as calls in one process.
    """
    processes = Counter(process for process, _ in seen)
    return max(len({stamp for _, stamp in seen}), *processes.values())
