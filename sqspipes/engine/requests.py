"""Requests: the one place that asks the broker. It waits out a broker that does not answer, and says so once."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from sqspipes.brokers.base import Limits
from sqspipes.brokers.exchange import Exchange, Request, Ticket
from sqspipes.engine.loop import EngineLoop, Timer
from sqspipes.errors import BrokerUnavailableError
from sqspipes.events import Event
from sqspipes.support.outage import Outage, pause_after_return

#: What is done with a reply. Replies are of several types, one for each kind of request.
TakeReply = Callable[[Any], None]


class PartError(Exception):
    """A part of the run cannot go on; the cause says why."""

    def __init__(self, part: str, cause: BaseException) -> None:
        super().__init__(part)
        self.part = part
        self.__cause__ = cause


class PatientRequest:
    """A request that is repeated until the broker has answered it.

    ``party`` is what the log calls requests of this kind to this queue. ``tries`` counts the tries that failed.
    ``first`` is when it was asked first, on the loop's clock. ``is_silent``: the last try has neither answered nor
    failed for longer than any request takes.
    """

    __slots__ = (
        "_lose", "_make", "_requests", "_take", "_timer", "due", "first", "is_silent", "more", "party", "since",
        "ticket", "tries",
    )  # fmt: skip

    def __init__(
        self,
        requests: Requests,
        party: str,
        make: Callable[[int], Request],
        take: TakeReply,
        lose: Callable[[], object],
        first: float,
    ) -> None:
        self._requests = requests
        self._make = make
        self._take = take
        self._lose = lose
        self._timer: Timer | None = None
        self.party = party
        self.tries = 0
        self.more: float = math.inf  #: further tries that are allowed
        self.first = first
        self.since = first  #: when the last try began
        self.due = math.inf  #: when the last try is overdue
        self.is_silent = False
        self.ticket: Ticket | None = None

    def cut(self) -> None:
        """End a poll that is open."""
        if self.ticket is not None:
            self.ticket.cut()

    def try_once_more(self) -> None:
        """Repeat the request once more at most, at once; if that fails too, it has brought nothing."""
        if self._timer is None:
            self.more = min(self.more, 1)
        else:
            self.more = 0
            self.try_soon(0.0)

    def try_soon(self, seconds: float) -> None:
        """Shorten a pause between two tries."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._requests.loop.later(seconds, self.start)

    def start(self) -> None:
        """Ask."""
        self._timer = None
        self._requests.submit(self, self._make(self.tries))

    def rest(self, seconds: float) -> None:
        """Ask again after a pause."""
        self._timer = self._requests.loop.later(seconds, self.start)

    def take(self, reply: Any) -> None:
        """Do with the reply what there is to do."""
        try:
            self._take(reply)
        except Exception as error:
            raise PartError(self.party, error) from error

    def lose(self) -> None:
        """Tell that there will never be a reply."""
        self._lose()


class Requests:
    """Asks the broker for all parts of one run.

    A request that neither answers nor fails for ``limits.longest_answer`` seconds is an outage, too. After as many
    seconds again it ends the run.
    """

    def __init__(
        self,
        exchange: Exchange,
        loop: EngineLoop,
        broker: str,
        limits: Limits,
        tell: Callable[[Event], object],
    ) -> None:
        self._exchange = exchange
        self.loop = loop
        self._outage = Outage(broker, loop.now, tell)
        self._outage.on_return(self._end_rests)
        self._longest_answer = limits.longest_answer
        self._open: dict[PatientRequest, None] = {}
        self._resting: dict[PatientRequest, None] = {}
        self._look_timer: Timer | None = None
        self.failed, self.succeeded = self._outage.failed, self._outage.succeeded

    @property
    def error(self) -> str | None:
        """What the last failed try said, while an outage lasts."""
        return self._outage.error

    def ask(
        self,
        party: str,
        make: Callable[[int], Request],
        take: TakeReply,
        lose: Callable[[], object] = lambda: None,
    ) -> PatientRequest:
        """Ask, again and again until there is a reply, which ``take`` gets in a later turn.

        ``make`` gets the count of tries that failed. An error that no further try could mend is a ``PartError`` of
        the turn, and ``lose`` is called in place of ``take``.
        """
        request = PatientRequest(self, party, make, take, lose, self.loop.now())
        request.start()
        return request

    def submit(self, request: PatientRequest, asked: Request) -> None:
        """Make one try."""
        self._resting.pop(request, None)
        request.since = now = self.loop.now()
        request.due, request.is_silent = now + self._longest_answer, False
        self._open[request] = None
        if self._look_timer is None:
            self._look_timer = self.loop.at(request.due, self._look)
        try:
            request.ticket = self._exchange.submit(asked, partial(self._came, request))
        except BaseException as error:  # the machine has no more threads
            del self._open[request]
            request.lose()
            raise PartError(request.party, error) from error

    def hasten(self) -> None:
        """Let no request wait out its pause."""
        for request in tuple(self._resting):
            request.try_soon(0.0)

    def _end_rests(self) -> None:
        for request in tuple(self._resting):
            request.try_soon(pause_after_return())

    def _came(self, request: PatientRequest, came: Any) -> None:
        del self._open[request]
        was_silent, request.ticket, request.is_silent = request.is_silent, None, False
        if isinstance(came, BrokerUnavailableError):
            request.tries += 1
            seconds = self.failed(request.party, came, request.tries)
            if request.more <= 0:
                request.take([])
                return
            if request.more < math.inf:
                request.more -= 1
                seconds = 0.0
            self._resting[request] = None
            request.rest(seconds)
        elif isinstance(came, BaseException):
            request.lose()
            raise PartError(request.party, came)
        else:
            self.succeeded(request.party, math.inf if was_silent else request.since)
            request.take(came)

    def _look(self) -> None:
        """Note requests that are overdue. The second look at one ends the run.

        It takes two looks: a process that was itself stopped for a while does not give up on what is answered now.
        """
        now, lost = self.loop.now(), []
        for request in self._open:
            if request.due > now:
                continue
            error = BrokerUnavailableError(f"no answer, and no error, for {now - request.since:.1f} s")
            if request.is_silent:
                lost.append(PartError(request.party, error))
            else:
                self._outage.note(request.party, error)
            request.due = math.inf if request.is_silent else now + self._longest_answer
            request.is_silent = True
        due = min((request.due for request in self._open), default=math.inf)
        self._look_timer = None if due == math.inf else self.loop.at(due, self._look)
        for part_error in lost[:1]:
            raise part_error
