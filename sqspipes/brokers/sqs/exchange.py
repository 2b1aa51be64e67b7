"""SqsExchange: the requests of an engine to SQS, over sockets that its loop watches.

What may block is left to a helper thread: queues that are not known yet, credentials that are to be renewed, the
server's addresses. What SQS refuses for a reason that takes more than one request to answer is made anew by the
blocking broker.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from sqspipes.brokers.adapter import IDLE_SECONDS, BlockingExchange
from sqspipes.brokers.base import Broker
from sqspipes.brokers.exchange import Done, Exchange, ExchangeLoop, Receive, Reply, Request, Send, Ticket
from sqspipes.brokers.sqs.account import CONNECT_TIMEOUT, CONNECTIONS, POLL_TIMEOUT, READ_TIMEOUT
from sqspipes.brokers.sqs.calls import LeanCalls
from sqspipes.brokers.sqs.errors import RefusedError
from sqspipes.brokers.sqs.lean.failures import not_answered, not_connected
from sqspipes.brokers.sqs.lean.nonblocking import ConnectError, HttpClient, HttpExchange
from sqspipes.brokers.sqs.lean.reply import Reply as HttpReply
from sqspipes.brokers.sqs.wording import Asked, Wording
from sqspipes.errors import BrokerError, QueueMissingError
from sqspipes.support.workers import Workers

#: Addresses of the server that are looked up at once: a name server that is away takes its time for each.
LOOKUPS = 4

#: What waits for new credentials.
_KEYS = "credentials"

#: Seconds between two tries to renew credentials that are good still.
_RENEWAL_SECONDS = 10.0


class SqsTicket(Ticket):
    """A request to SQS under way."""

    __slots__ = ("_cut_other", "ahead", "asked", "done", "http", "is_corrected", "is_cut", "request")

    def __init__(self, request: Request, done: Done) -> None:
        self.request = request
        self.done = done
        self.asked: Asked | None = None  #: in SQS's words
        self.http: HttpExchange | None = None
        self.ahead = 0.0  #: the clock that it was signed with
        self.is_corrected = False  #: it was signed anew, as that clock was wrong
        self.is_cut = False
        self._cut_other: Ticket | None = None

    def cut(self) -> None:
        """End a poll soon; what the server gave to it is asked for once more."""
        if isinstance(self.request, Receive) and self.request.is_poll and not self.is_cut:
            self.is_cut = True
            if self._cut_other is not None:
                self._cut_other.cut()
            elif self.http is not None:
                self.http.cut()

    def left_to(self, other: Ticket) -> None:
        """Let another ticket be cut in this one's place."""
        self._cut_other = other
        if self.is_cut:
            other.cut()


class SqsExchange(Exchange):
    """Requests to SQS for one engine. All methods are called in the engine's turn."""

    def __init__(
        self, broker: Broker, calls: LeanCalls, wording: Wording, loop: ExchangeLoop, name: str
    ) -> None:
        self._calls = calls
        self._wording = wording
        self._loop = loop
        self._helper = Workers(1, f"{name} helper")
        self._lookups = Workers(LOOKUPS, f"{name} lookup", IDLE_SECONDS)
        self._blocking = BlockingExchange(broker, loop.tell, name)
        wire = calls.lean.wire
        self._url = wire.url
        self._http = HttpClient(
            wire.server, wire.tls, loop, self._lookups, connect_timeout=CONNECT_TIMEOUT, most_idle=CONNECTIONS
        )
        self._waiting: dict[str, list[SqsTicket]] = {}  # what waits for the helper, by what it waits for
        self._is_closed = False
        self._polls: set[SqsTicket] = set()
        self._renew_at = 0.0

    def submit(self, request: Request, done: Done) -> Ticket:
        """Begin a request."""
        if self._is_closed:
            raise RuntimeError("the exchange is closed: it takes no more requests")
        ticket = SqsTicket(request, done)
        if isinstance(request, Receive) and request.is_poll:
            self._polls.add(ticket)
        self._begin(ticket)
        return ticket

    def close(self) -> None:
        """Take no more requests, and end those that are under way."""
        self._is_closed = True
        for ticket in tuple(self._polls):
            ticket.cut()
        self._http.close()
        self._helper.shutdown(wait=False)
        self._lookups.shutdown(wait=False)
        self._blocking.close()

    # Before a request goes

    def _begin(self, ticket: SqsTicket, *, has_renewed: bool = False) -> None:
        queue = ticket.request.queue
        if not self._wording.knows(ticket.request):
            self._after("queue " + queue, ticket, partial(self._wording.learn, queue))
            return
        if self._calls.should_renew and not has_renewed:
            if self._calls.must_renew:
                self._after(_KEYS, ticket, self._calls.renew)
                return
            self._renew_soon()
        asked = ticket.asked = self._wording.asked(ticket.request)
        seconds = self._calls.seconds_to_wait(asked.action, queue)
        if seconds > 0:
            self._loop.later(seconds, partial(self._send, ticket, asked))
        else:
            self._send(ticket, asked)

    def _renew_soon(self) -> None:
        """Have new credentials fetched while the old ones are good still, now and then."""
        now = self._loop.now()
        if now >= self._renew_at and _KEYS not in self._waiting:
            self._renew_at = now + _RENEWAL_SECONDS
            self._waiting[_KEYS] = []
            self._helper.submit(self._help, _KEYS, self._calls.renew)

    def _after(self, what: str, ticket: SqsTicket, work: Callable[[], object]) -> None:
        """Have the helper do something, once for all that wait for it, and begin then."""
        is_first = what not in self._waiting
        waiting = self._waiting.setdefault(what, [])
        waiting.append(ticket)
        if is_first:
            self._helper.submit(self._help, what, work)

    def _help(self, what: str, work: Callable[[], object]) -> None:
        """Do what blocks; in the helper's thread."""
        failure: BaseException | None = None
        try:
            work()
        except BaseException as error:
            failure = error
        self._loop.tell(partial(self._helped, what, failure))

    def _helped(self, what: str, failure: BaseException | None) -> None:
        for ticket in self._waiting.pop(what):
            if failure is not None:
                self._end(ticket, failure)
            else:
                self._begin(ticket, has_renewed=what == _KEYS)

    def _send(self, ticket: SqsTicket, asked: Asked) -> None:
        if ticket.is_cut and not asked.is_repeated:  # before it went: it has taken nothing
            self._loop.tell(partial(self._end, ticket, []))
            return
        lean = self._calls.lean
        ticket.ahead = lean.clock.ahead
        try:
            request = lean.request(asked.action, asked.params, self._calls.keys())
        except BrokerError as error:
            self._loop.tell(partial(self._end, ticket, error))
            return
        timeout = POLL_TIMEOUT if asked.action == "ReceiveMessage" else READ_TIMEOUT
        ticket.http = self._http.exchange(request, timeout, partial(self._came, ticket, asked))

    # What came

    def _came(self, ticket: SqsTicket, asked: Asked, came: HttpReply | Exception) -> None:
        ticket.http = None
        if isinstance(came, Exception):
            if ticket.is_cut and not asked.is_repeated and not self._is_closed:
                self._repeat(ticket, asked)
            else:
                self._failed(ticket, asked, self._as_botocore(came))
            return
        try:
            result = self._calls.lean.result(asked.action, asked.params, came)
        except ClientError as error:
            if not ticket.is_corrected and self._calls.lean.clock.corrected(error, ticket.ahead):
                ticket.is_corrected = True
                self._send(ticket, asked)
            else:
                self._failed(ticket, asked, error)
        except ResponseParserError as error:
            self._failed(ticket, asked, error)
        else:
            self._calls.answered(asked.action, ticket.request.queue)
            self._end(ticket, self._wording.reply(ticket.request, asked, result))

    def _repeat(self, ticket: SqsTicket, asked: Asked) -> None:
        """Ask for what the server gave to a poll that was cut: it gives that again to the same attempt."""
        ticket.asked = asked.repeated()
        self._send(ticket, ticket.asked)

    def _failed(self, ticket: SqsTicket, asked: Asked, error: Exception) -> None:
        queue = ticket.request.queue
        if isinstance(error, BrokerError):
            self._end(ticket, error)
            return
        failure = self._calls.translated(error, asked.action, queue)
        if asked.is_repeated and isinstance(failure, RefusedError):
            self._end(ticket, [])  # an attempt that SQS does not take again has brought nothing
        elif isinstance(failure, RefusedError) and isinstance(ticket.request, Send | Receive):
            # Too long for one request, or an attempt id that SQS refuses.
            self._leave_to_broker(ticket)
        elif isinstance(failure, QueueMissingError):
            self._end(ticket, self._wording.lost(failure))
        else:
            self._end(ticket, failure)

    def _leave_to_broker(self, ticket: SqsTicket) -> None:
        if self._is_closed:
            self._end(ticket, [] if isinstance(ticket.request, Receive) else self._closed_error())
            return
        ticket.left_to(self._blocking.submit(ticket.request, partial(self._end, ticket)))

    @staticmethod
    def _closed_error() -> BrokerError:
        return BrokerError("the exchange was closed")

    def _end(self, ticket: SqsTicket, came: Reply | BaseException) -> None:
        self._polls.discard(ticket)
        ticket.done(came)

    def _as_botocore(self, error: Exception) -> Exception:
        """Return what botocore would raise."""
        if isinstance(error, ConnectError):
            return not_connected(self._url, error.__cause__ or error)
        return not_answered(self._url, error)
