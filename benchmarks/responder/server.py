"""Server: HTTP/1.1 over asyncio, as much of it as clients of SQS need, with a delay on every answer.

``python -m benchmarks.responder.server`` takes a free port of 127.0.0.1 and prints it. A request takes effect when
it arrives; the whole round trip is on its answer, and answers wait side by side. Beside SQS there are ``/counters``,
``/reset`` (which also sets ``{"round_trip": seconds, "quota": requests a second}``) and ``/depths``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

from benchmarks.responder.actions import Actions, ServiceError
from benchmarks.responder.counters import Counters, Quota
from benchmarks.responder.queues import Queue

#: Seconds between two looks for messages whose time in flight is over.
SWEEP = 0.1

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TARGET = re.compile(rb"\r\nx-amz-target: *AmazonSQS\.(\w+)", re.IGNORECASE)


class Poll:
    """A receive that waits for a message, and where its answer goes."""

    __slots__ = ("connection", "count", "lease", "open", "timer")

    def __init__(self, connection: Connection, count: int, lease: float) -> None:
        self.connection, self.count, self.lease = connection, count, lease
        self.open = True
        self.timer: asyncio.TimerHandle | None = None


class Server:
    """Queues, the polls that wait for them, counters, and what was set."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.loop = loop
        self.round_trip = 0.0
        self.counters = Counters()
        self._quota = Quota(0)
        self._actions = Actions(f"http://127.0.0.1:{port}")
        self._polls: defaultdict[str, deque[Poll]] = defaultdict(deque)
        self._sweep()

    def request(self, connection: Connection, action: str, params: Mapping[str, Any]) -> str | Poll:
        """Serve a request of SQS; return the answer's body, or the poll that will be answered."""
        now = time.time()
        name = params.get("QueueName") or str(params.get("QueueUrl", "")).rpartition("/")[2]
        count = self.counters.count(name, action, now)
        if not self._quota.takes(name, action, now):
            count.throttled += 1
            raise ServiceError("RequestThrottled", "RequestThrottled", 403)
        if action == "ReceiveMessage":
            return self._receive(connection, params, now)
        count.entries += len(params.get("Entries", "1"))
        body = self._actions.answer(action, params, now)
        if name in self._actions.queues:
            self._serve(self._actions.queues[name], now)
        return body

    def own(self, path: str, body: bytes) -> str:
        """Serve a request of the benchmark's."""
        if path == "/reset":
            settings = json.loads(body or b"{}")
            self.round_trip = settings.get("round_trip", self.round_trip)
            self._quota = Quota(settings.get("quota", 0))
            self.counters.reset()
        if path == "/depths":
            return json.dumps({name: queue.depth() for name, queue in self._actions.queues.items()})
        return json.dumps(self.counters.shown())

    def _receive(self, connection: Connection, params: Mapping[str, Any], now: float) -> str | Poll:
        queue = self._actions.queue(params)
        poll = Poll(
            connection,
            int(params.get("MaxNumberOfMessages") or 1),
            float(params.get("VisibilityTimeout", queue.lease)),
        )
        queue.expire(now)
        wait = params.get("WaitTimeSeconds") or 0
        if queue.ready or not wait:
            return self._taken(queue, poll, now)
        self._polls[queue.name].append(poll)
        poll.timer = self.loop.call_later(wait, self._timed_out, queue.name, poll)
        return poll

    def _taken(self, queue: Queue, poll: Poll, now: float) -> str:
        got = queue.receive(poll.count, poll.lease, now)
        count = self.counters.of(queue.name, "ReceiveMessage")
        count.entries += len(got)
        count.empty += not got
        return f'{{"Messages":[{",".join([message.answer() for message in got])}]}}' if got else "{}"

    def _serve(self, queue: Queue, now: float) -> None:
        """Answer the polls for which there is something now, the oldest first."""
        polls = self._polls[queue.name]
        while polls and queue.ready:
            poll = polls.popleft()
            if poll.timer is not None:
                poll.timer.cancel()
            if poll.open:
                poll.connection.answer(self._taken(queue, poll, now))

    def _timed_out(self, name: str, poll: Poll) -> None:
        self._polls[name].remove(poll)
        self.counters.of(name, "ReceiveMessage").empty += 1
        poll.connection.answer("{}")

    def _sweep(self) -> None:
        now = time.time()
        for queue in self._actions.queues.values():
            queue.expire(now)
            self._serve(queue, now)
        self.loop.call_later(SWEEP, self._sweep)


class Connection(asyncio.Protocol):
    """One client's connection: requests one after the other, each answered after the round trip."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = b""
        self._poll: Poll | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the poll that nobody waits for any more."""
        self._transport = None
        if self._poll is not None:
            self._poll.open = False

    def data_received(self, data: bytes) -> None:
        """Serve the requests that are complete."""
        self._buffer = self._buffer + data if self._buffer else data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[: end + 2]
            length = _LENGTH.search(head)
            until = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < until:
                if b"100-continue" in head and len(self._buffer) == end + 4 and self._transport:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body, self._buffer = self._buffer[end + 4 : until], self._buffer[until:]
            self._request(head, body)

    def answer(self, body: str, status: str = "200 OK", more: str = "") -> None:
        """Send an answer when the round trip is over."""
        self._poll = None
        text = body.encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.0\r\n{more}Content-Length: {len(text)}"
        if self._server.round_trip:
            self._server.loop.call_later(self._server.round_trip, self._write, head.encode(), text)
        else:
            self._write(head.encode(), text)

    def _write(self, head: bytes, body: bytes) -> None:
        if self._transport is not None:
            self._transport.write(b"%b\r\n\r\n%b" % (head, body))

    def _request(self, head: bytes, body: bytes) -> None:
        target = _TARGET.search(head)
        if target is None:
            self.answer(self._server.own(head.split(b" ", 2)[1].decode(), body))
            return
        try:
            served = self._server.request(self, target[1].decode(), json.loads(body))
        except ServiceError as error:
            said = json.dumps({"__type": f"com.amazonaws.sqs#{error.code}", "message": str(error)})
            more = f"x-amzn-query-error: {error.old_code};Sender\r\n"
            self.answer(said, f"{error.status} Refused", more)
            return
        if isinstance(served, Poll):
            self._poll = served
        else:
            self.answer(served)


async def serve() -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    servers: list[Server] = []
    listening = await loop.create_server(lambda: Connection(servers[0]), "127.0.0.1", 0, backlog=1024)
    port = listening.sockets[0].getsockname()[1]
    servers.append(Server(loop, port))
    print(port, flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    # Nothing here goes in circles, and looking for circles among 100,000 messages is what would take time.
    gc.disable()
    asyncio.run(serve())
