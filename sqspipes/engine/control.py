"""Control: reads the control word while a run goes on, and has the run obey."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from sqspipes.brokers.base import Broker
from sqspipes.errors import BrokerError, BrokerUnavailableError
from sqspipes.messages import control_word
from sqspipes.messages.control_word import ControlWord
from sqspipes.support import lines

logger = lines.logger(__name__)

#: Seconds for which a run waits for the first look, so that a paused task takes nothing in.
FIRST_LOOK_SECONDS = 1.0

#: By how much longer than the interval it may be to the next look after one that failed. SQS lets an account make
#: five tagging requests a second.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html
SPREAD = 1.25

#: Seconds for which a stop waits for the thread: it ends at once, unless a request is under way.
STOP_SECONDS = 0.1


class Pausable(Protocol):
    """What takes in work for a task: its receives, or a source."""

    @property
    def task(self) -> str:
        """The task's name."""

    def pause(self, paused: bool) -> bool:
        """Take in nothing more, or go on; return whether that is a change."""


class Control:
    """Looks when a run starts and then once an interval, in a thread of its own, as a request may take long.

    The stop token that it sees first is an old one, unless the first look failed and the token is younger than the
    run; ``stop`` is called when there is another one. A look that fails is no outage: it is repeated at the next
    turn. ``heard`` is set once a task was paused: nobody waits for a put then.
    """

    def __init__(
        self,
        broker: Broker,
        queue: str,
        seconds: float,
        domain: str,
        parts: Sequence[Pausable],
        stop: Callable[[], None],
        heard: threading.Event,
        died: Callable[[str, BaseException], None],
        *,
        drains: bool,
    ) -> None:
        self._broker = broker
        self._queue = queue
        self._seconds = seconds
        self._domain = domain
        self._parts = parts
        self._stop = stop
        self._heard = heard
        self._died = died
        self._waits = "; the drain waits for what it has left" if drains else ""
        self._token: str | None = None
        self._read = False  # a look has succeeded: the token is known
        self._missed = False  # a look has failed
        self._began = 0.0
        self._failures = 0
        self._told = False  # the log says that it cannot be read
        self._looked = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"sqspipes control {domain}", daemon=True)

    def start(self) -> None:
        """Begin to look; return once the first look has ended, or takes too long."""
        self._began = time.time()
        self._thread.start()
        self._looked.wait(FIRST_LOOK_SECONDS)

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                self._look()
                self._looked.set()
                # Those that were throttled as they all looked at once shall not do so again.
                spread = random.uniform(1.0, SPREAD) if self._failures else 1.0
                self._stopped.wait(self._seconds * spread)
        except BaseException as error:
            self._died("control", error)
        finally:
            self._looked.set()

    def _look(self) -> None:
        try:
            found = control_word.read(self._broker.tags(self._queue))
        except BrokerError as error:
            self._failed(error)
            return
        if self._stopped.is_set():  # what is paused stays so: it is not to begin anything now
            return
        if self._told:
            logger.info("%s: the control word can be read again", self._domain)
        self._told, self._failures = False, 0
        self._obey(found)

    def _obey(self, found: ControlWord) -> None:
        for part in self._parts:
            paused = part.task in found.paused
            if part.pause(paused):
                self._say(part.task, paused=paused)
        if found.stop not in (None, self._token) and (self._read or self._is_new(str(found.stop))):
            logger.info("%s is told to stop by the control word", self._domain)
            self._stop()
        self._token, self._read = found.stop, True

    def _is_new(self, token: str) -> bool:
        """Say whether the first token that was read came after the start, though the first look failed."""
        return self._missed and control_word.is_later(token, self._began)

    def _say(self, task: str, *, paused: bool) -> None:
        if paused:
            self._heard.set()
            logger.info("%s is paused, and takes nothing in until it is resumed%s", task, self._waits)
        else:
            logger.info("%s is resumed", task)

    def _failed(self, error: BrokerError) -> None:
        """Say it once: of what may pass when it failed twice, of what was refused at once."""
        if self._stopped.is_set():
            return
        self._missed = True
        self._failures += 1
        may_pass = isinstance(error, BrokerUnavailableError)
        if self._told or (may_pass and self._failures == 1):
            logger.debug("%s: the control word cannot be read: %s", self._domain, error)
            return
        self._told = True
        logger.warning(
            "%s: the control word cannot be read, so pause, resume and stop do not reach this process: %s",
            self._domain, error,
        )  # fmt: skip
