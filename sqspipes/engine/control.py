"""Control: reads the control word during a run, and pauses, resumes or stops the run as the word says."""

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

#: Seconds for which the start of a run waits for the first look: a task that is paused already shall receive nothing.
FIRST_LOOK_SECONDS = 1.0

#: After a look that failed, the next look follows after 1 to so many intervals, at random. SQS lets an account make 5
#: tagging requests a second, so many processes that look at the same moment are throttled.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html
SPREAD = 1.25

#: Seconds for which a stop waits for the thread. The thread ends at once, unless a request is under way.
STOP_SECONDS = 0.1


class Pausable(Protocol):
    """A part of a run that can be paused: a task that receives, or a source."""

    @property
    def task(self) -> str:
        """The task's name."""

    def pause(self, paused: bool) -> bool:
        """Take in nothing more if ``paused``, else go on; return whether that is a change."""


class Control:
    """Looks at the control word when a run starts, and then once an interval.

    The looks have a thread of their own, as a request may take long. A look that fails is no outage: the next look
    follows after about an interval.

    ``stop`` is called when a look finds another stop token than the look before. A stop token that is present when
    the run starts is ignored. If the first look failed, nobody knows what was present at the start: then the first
    token that is found counts if it was made after the start of the run.

    ``heard`` is set when a task is paused, so that the log does not say that the run waits for a put. ``died`` is
    told of an error that ends the thread. With ``drains`` the log of a pause says that the drain waits for what the
    paused task has left.
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
        self._began = 0.0  # on the wall clock, as the times in stop tokens are
        self._failures = 0  # looks in a row that failed
        self._told = False  # the log says that the control word cannot be read
        self._looked = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"sqspipes control {domain}", daemon=True)

    def start(self) -> None:
        """Begin to look; return when the first look has ended, after ``FIRST_LOOK_SECONDS`` at the latest."""
        self._began = time.time()
        self._thread.start()
        self._looked.wait(FIRST_LOOK_SECONDS)

    def stop(self) -> None:
        """Make no further look."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                self._look()
                self._looked.set()
                # Processes that were throttled because they looked at the same moment shall not do so again.
                spread = random.uniform(1.0, SPREAD) if self._failures else 1.0
                self._stopped.wait(self._seconds * spread)
        except BaseException as error:
            self._died("control", error)
        finally:
            self._looked.set()  # ``start`` waits no longer, even if the first look has ended the thread

    def _look(self) -> None:
        try:
            found = control_word.read(self._broker.tags(self._queue))
        except BrokerError as error:
            self._failed(error)
            return
        if self._stopped.is_set():  # the run stops: what is paused shall not be resumed any more
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
        """Say whether the first token that was found was made after the start; False if no look has failed before."""
        return self._missed and control_word.is_later(token, self._began)

    def _say(self, task: str, *, paused: bool) -> None:
        if paused:
            self._heard.set()
            logger.info("%s is paused, and takes nothing in until it is resumed%s", task, self._waits)
        else:
            logger.info("%s is resumed", task)

    def _failed(self, error: BrokerError) -> None:
        """Log a failure, as a WARNING once.

        An error that may pass is a WARNING when the second look in a row has failed, any other error at once.
        """
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
