"""Child: what one of several processes does, from its start to its report."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any, Protocol

from sqspipes.calls import error_text
from sqspipes.engine.run import Run
from sqspipes.engine.signals import undo_in_forks
from sqspipes.errors import RunError
from sqspipes.processes.printed import Diverted
from sqspipes.processes.tally import counts_of

#: Ends a process that was asked for processes while it imported the main module: EX_CONFIG of sysexits.h.
UNGUARDED = 78

#: What the terminal or a service manager sends to every process of a group, and what a process of a run handles.
SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: What is blocked until a process can handle it: the command line handles the end of its terminal in ``prepare``.
BLOCKED = (*SIGNALS, signal.SIGHUP) if hasattr(signal, "SIGHUP") else SIGNALS

#: Characters of a traceback that a report may have.
MOST_TRACEBACK = 20_000


class Client(Protocol):
    """What a child needs of the TaskClient that was sent to it."""

    def _share(self, asked: Any, first: bool) -> Run: ...

    def close(self) -> None: ...


def refuse_unguarded() -> None:
    """End a child whose main module starts processes as it is imported: nothing would ever be ready."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(UNGUARDED)


def main(link: Connection, parcel: bytes, first: bool, printed: Sequence[Connection] = ()) -> None:
    """Run one process's share and report its end; at the other end of the link is the parent.

    ``printed`` are the ends of the pipe through which the parent wants to hear what this process prints.
    """
    part, parent = "start", _ParentLink(link)
    diverted = Diverted(*printed) if printed else None
    try:
        client, asked = _unpacked(parcel)
        with closing(client):
            parent.run = run = client._share(asked, first)
            stops = _Stops(run, link, parent, diverted)
            run.start()
            part = "task"
            parent.say({"ready": True})
            stops.listen()
            summary = run.wait()
    except BaseException as error:
        parent.say({"error": _described(part, error)})
    else:
        parent.say(asdict(summary))


def _unpacked(parcel: bytes) -> tuple[Client, Any]:
    client, asked = pickle.loads(parcel)
    return client, asked


def _described(part: str, error: BaseException) -> Mapping[str, str]:
    died = isinstance(error, RunError)
    return {
        "part": error.part if isinstance(error, RunError) else part,
        "text": error_text.said(error) if died else error_text.describe(error),
        "traceback": error_text.formatted(error)[-MOST_TRACEBACK:],
    }


class _ParentLink:
    """What this process says, from any thread: with all of it go the counts of its run, once there is one."""

    def __init__(self, link: Connection) -> None:
        self._link = link
        self._lock = threading.Lock()
        self.run: Run | None = None

    def say(self, message: Mapping[str, Any]) -> None:
        """Say something; the parent asks again only when it was answered, so this waits for nobody."""
        with self._lock, suppress(OSError):  # the parent is gone
            if self.run is not None:
                message = {**message, "counts": counts_of(self.run.by_task), "outage": self.run.outage}
            self._link.send_bytes(json.dumps(message).encode())


class _Stops:
    """What this process is told: the same stop, from the parent and from outside, counts once.

    The parent hears what the terminal or a service manager sends to all processes, and passes it on.
    """

    def __init__(self, run: Run, link: Connection, parent: _ParentLink, diverted: Diverted | None) -> None:
        self._run = run
        self._link = link
        self._parent = parent
        self._diverted = diverted
        self._fresh = [True]  # taken by whoever is first: a list's pop is one step for all threads
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        signal.signal(signal.SIGTERM, self._terminated)
        signal.signal(signal.SIGINT, self._interrupted)  # not SIG_IGN: what tasks start would inherit that
        undo_in_forks(self._undo)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)

    def _undo(self) -> None:
        """In a process that a task forks, do about signals what was done before: it is no part of the run."""
        for number, handler in self._before.items():
            if signal.getsignal(number) in (self._terminated, self._interrupted):
                signal.signal(number, handler or signal.SIG_DFL)

    def listen(self) -> None:
        """Do what the parent says and answer it, in a thread of its own; when it is gone, stop."""
        threading.Thread(target=self._listen, name="sqspipes parent", daemon=True).start()

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                asked = json.loads(self._link.recv_bytes())
                if "stop" in asked:
                    self._obey(asked["stop"])
                else:
                    self._parent.say({})
        self._once()
        if self._diverted is not None:
            self._diverted.give_back()

    def _obey(self, level: str) -> None:
        if level == "signal":
            self._once()
            return
        self._fresh.clear()
        if level == "hurry":
            self._run.signal()
        elif level == "interrupt":
            self._run.interrupt()
        else:
            self._run.stop()

    def _once(self) -> None:
        """Stop in good order, unless that goes on already."""
        with suppress(IndexError):
            self._fresh.pop()
            self._run.signal()

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        self._once()

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        """Leave it to the parent."""
