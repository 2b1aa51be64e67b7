"""Weather: what a network and a busy server do to requests, by seeded chance; behaviours of the proxy."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from tests.servers import (
    Behaviour,
    Forward,
    Reply,
    Request,
    error,
    half_answer,
    json_reply,
    lost_answer,
    lost_request,
    trickled,
)


def chained(*behaviours: Behaviour) -> Behaviour:
    """Return behaviours one behind the other, the last one nearest to the server; only the first may cut."""
    first, *others = behaviours

    def behave(request: Request, forward: Forward) -> Reply | None:
        for behaviour in reversed(others):
            forward = _through(behaviour, forward)
        return first(request, forward)

    return behave


def _through(behaviour: Behaviour, forward: Forward) -> Forward:
    def ask(request: Request) -> Reply:
        reply = behaviour(request, forward)
        assert reply is not None, "only the first of chained behaviours may cut"
        return reply

    return ask


def delayed(request: Request, forward: Forward) -> Reply | None:
    """The request is forwarded after 0.2 seconds."""
    threading.Event().wait(0.2)
    return forward(request)


PAGE = b"<!DOCTYPE html><title>Sign in</title><h1>Sign in to the network</h1>"


def page(request: Request, forward: Forward) -> Reply | None:
    """A proxy on the way answers with a page of its own, and says that all is well."""
    return Reply(200, {"Content-Type": "text/html"}, PAGE)


def page_in_place_of_the_answer(request: Request, forward: Forward) -> Reply | None:
    """The server does what was asked, and a page comes in place of its answer."""
    forward(request)
    return page(request, forward)


def answer_to_somebody_else(request: Request, forward: Forward) -> Reply | None:
    """The server does what was asked, and the answer speaks of entries that nobody asked for."""
    answer = forward(request).json
    for kind in ("Successful", "Failed"):
        for entry in answer.get(kind) or ():
            entry["Id"] = f"other-{entry['Id']}"
    if "Messages" in answer:
        answer["Messages"] = "none"
    return json_reply(answer)


FAULTS: dict[str, Behaviour] = {
    "500": error(500, "InternalFailure"),
    "503": error(503, "ServiceUnavailable"),
    "throttled": error(400, "RequestThrottled"),
    "throttling": error(400, "ThrottlingException"),
    "408": error(408, "RequestTimeout"),
    "page": page,
    "page in place of the answer": page_in_place_of_the_answer,
    "answer to somebody else": answer_to_somebody_else,
    "delay": delayed,
    "lost request": lost_request,
    "lost answer": lost_answer,
    "half answer": half_answer,
    "trickled": trickled(0.5),
}


#: Seconds for an answer that is under way, beyond the wait of the receive that is repeated: where the first one was
#: a long poll, which may have nothing to tell yet, and where it waits for nothing but a server that is busy.
GRACE, BUSY_GRACE = 0.5, 30.0


@dataclass
class _Remembered:
    waits: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    reply: Reply | None = None
    receipts: frozenset[str] = frozenset()
    forsaken: bool = False  #: it was asked back while it was open, and answered that there was nothing yet


class Replays:
    """Gives a repeated receive the answer of the first one, as AWS does and no emulator.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html: a receive with
    the same ``ReceiveRequestAttemptId`` has the same messages and receipts again, as long as none of them was
    deleted or extended. One whose first receive is still open has that one's answer, or none after its own wait.

    What a server gives to a poll that was cut and asked back before is hidden for a lease: the declared limit of a
    stop, which nobody can do anything about. Those messages are given back here, and counted, so that every other
    one that is hidden is found.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempts: dict[str, _Remembered] = {}
        self._changed: set[str] = set()
        self.replayed = 0
        self.orphaned = 0
        self.grace = GRACE

    def __call__(self, request: Request, forward: Forward) -> Reply:
        if request.action == "ReceiveMessage":
            return self._received(request, forward)
        if request.action in ("DeleteMessageBatch", "ChangeMessageVisibilityBatch"):
            with self._lock:
                self._changed.update(entry["ReceiptHandle"] for entry in request.json["Entries"])
        return forward(request)

    def _received(self, request: Request, forward: Forward) -> Reply:
        wait = request.json.get("WaitTimeSeconds", 0)
        with self._lock:
            attempt = request.json["ReceiveRequestAttemptId"]
            known = self._attempts.setdefault(attempt, _Remembered(waits=wait))
        if not known.lock.acquire(timeout=wait + (self.grace if known.waits else BUSY_GRACE)):
            known.forsaken = True
            return json_reply({})
        try:
            return self._answered(known, request, forward)
        finally:
            known.lock.release()

    def _answered(self, known: _Remembered, request: Request, forward: Forward) -> Reply:
        if known.reply is None:
            reply = forward(request)
            if reply.status == 200:
                known.reply = reply
                known.receipts = frozenset(
                    message["ReceiptHandle"] for message in reply.json.get("Messages") or ()
                )
                if known.forsaken and known.receipts:
                    self.orphaned += len(known.receipts)
                    forward(_release(request, known.receipts))
            return reply
        with self._lock:
            self.replayed += 1
            changed = known.receipts & self._changed
        return _refused(request, forward) if changed else known.reply


def _release(receive: Request, receipts: Iterable[str]) -> Request:
    """Return the request that gives back what a receive took."""
    entries = [
        {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
        for number, receipt in enumerate(receipts)
    ]
    target = "AmazonSQS.ChangeMessageVisibilityBatch"
    headers = {
        name: target if name.lower() == "x-amz-target" else value for name, value in receive.headers.items()
    }
    body = json.dumps({"QueueUrl": receive.json["QueueUrl"], "Entries": entries}).encode()
    return replace(receive, headers=headers, body=body)


def _refused(request: Request, forward: Forward) -> Reply:
    reply = error(400, "InvalidParameterValue", "the messages of this attempt were changed")(request, forward)
    assert reply is not None
    return reply


class Weather:
    """Lets a part of all requests meet with a fault, drawn by a seeded chance; ``faults`` counts them."""

    def __init__(self, chance: random.Random, part: float, kinds: Sequence[str] = tuple(FAULTS)) -> None:
        self._chance, self._lock = chance, threading.Lock()
        self._kinds = kinds
        self.part = part
        self.faults: Counter[str] = Counter()

    def __call__(self, request: Request, forward: Forward) -> Reply | None:
        with self._lock:
            if self._chance.random() >= self.part:
                kind = None
            else:
                kind = self._chance.choice(self._kinds)
                self.faults[f"{kind} {request.action}"] += 1
        return forward(request) if kind is None else FAULTS[kind](request, forward)
