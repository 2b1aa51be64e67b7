"""Scenario 5: requests in which single entries fail."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.chaos.conftest import Chaos, MakePipe
from tests.chaos.ledger import wait_for
from tests.servers import Forward, Reply, Request, json_reply

SEND, DELETE, EXTEND = ACTIONS = ("SendMessageBatch", "DeleteMessageBatch", "ChangeMessageVisibilityBatch")

#: What becomes of an entry that the server does not get: nothing is said of it, or this.
UNSAID: dict[str, Any] = {}
AGAIN = {"Code": "InternalError", "Message": "provoked by the test", "SenderFault": False}
NEVER = {"Code": "InvalidMessageContents", "Message": "provoked by the test", "SenderFault": True}


@dataclass(frozen=True)
class Entry:
    """One entry of a batch as it came, and whether it was done."""

    action: str
    queue: str
    key: str  #: what tells it from others: a deduplication id, or a receipt
    group: str
    value: dict[str, Any] | None  #: of a message that is sent
    request: int
    at: float
    done: bool = False


class Partial:
    """Keeps single entries from the server and answers for them in its place; ``entries`` are all that came.

    ``fate`` says what to answer for an entry; None lets it pass.
    """

    def __init__(self, fate: Callable[[Entry], dict[str, Any] | None]) -> None:
        self._fate = fate
        self._lock = threading.Lock()
        self._requests = 0
        self.entries: list[Entry] = []

    def __call__(self, request: Request, forward: Forward) -> Reply | None:
        if request.action not in ACTIONS:
            return forward(request)
        with self._lock:
            self._requests += 1
            came = {raw["Id"]: self._entry(request, raw, self._requests) for raw in request.json["Entries"]}
            fates = {id: fate for id, entry in came.items() if (fate := self._fate(entry)) is not None}
        reply = json_reply({"Successful": []})
        if kept := [raw for raw in request.json["Entries"] if raw["Id"] not in fates]:
            body = json.dumps({**request.json, "Entries": kept}).encode()
            reply = forward(Request(request.method, request.path, request.headers, body))
        said = [{"Id": id, **fate} for id, fate in fates.items() if fate is not UNSAID]
        if reply.status == 200:
            reply = json_reply({**reply.json, "Failed": [*(reply.json.get("Failed") or ()), *said]})
        done = {entry["Id"] for entry in reply.json.get("Successful") or ()}
        with self._lock:
            self.entries += [replace(entry, done=id in done) for id, entry in came.items()]
        return reply

    @staticmethod
    def _entry(request: Request, raw: dict[str, Any], number: int) -> Entry:
        sent = request.action == SEND
        return Entry(
            action=request.action,
            queue=request.json["QueueUrl"].rpartition("--")[2].removesuffix(".fifo"),
            key=raw["MessageDeduplicationId"] if sent else raw["ReceiptHandle"],
            group=raw.get("MessageGroupId", ""),
            value=json.loads(raw["MessageBody"])["value"] if sent else None,
            request=number,
            at=request.at,
        )

    @property
    def failed(self) -> list[Entry]:
        """What was not done."""
        return [entry for entry in self.entries if not entry.done]

    def check(self, soonest: float) -> None:
        """Check that only what failed was repeated, and that groups kept to themselves.

        ``soonest``: seconds after which a lease that was extended may be extended again.
        """
        done: dict[tuple[str, str, str], float] = {}
        for entry in self.entries:
            key = (entry.action, entry.queue, entry.key)
            again = key in done and (entry.action != EXTEND or entry.at < done[key] + soonest)
            assert not again, f"done, and sent again: {entry}"
            if entry.done:
                done[key] = entry.at
        groups = Counter((entry.request, entry.group) for entry in self.entries if entry.action == SEND)
        assert max(groups.values()) == 1, "two of one group in one request"


def by_chance(chance: random.Random, part: float) -> Callable[[Entry], dict[str, Any] | None]:
    """Let a part of all entries fail, said or unsaid."""
    return lambda entry: chance.choice((AGAIN, UNSAID)) if chance.random() < part else None


@pytest.mark.timeout(240)
def test_only_entries_that_failed_are_repeated_and_nothing_of_their_group_overtakes(
    chaos: Chaos, make_pipe: MakePipe, transport: str
) -> None:
    lease = 5.0 if chaos.full else 240.0
    pipe = make_pipe("sqs", options={"lease": lease, "transport": transport}, workers=20)
    partial = Partial(by_chance(chaos.random, 0.2))
    pipe.weather(partial)
    pipe.ledger.feed(groups=20, each=6 if chaos.full else 5)
    begun = time.monotonic()
    # In the whole round longer than half a lease: each message is extended once.
    pipe.fleet.start(tasks=["one"], seconds=3.0 if chaos.full else 0.0)
    pipe.fleet.start(tasks=["two", "three"])
    for worker in pipe.fleet.workers:
        worker.said("runs on")
    pipe.ledger.settle(120)
    seconds = time.monotonic() - begun
    pipe.fleet.end()
    failed = Counter(entry.action for entry in partial.failed)
    chaos.settled(
        f"5 partial: a fifth, {transport}", "sqs", pipe, faults=sum(failed.values()), seconds=seconds
    )
    partial.check(soonest=1.5)
    assert set(failed) == (set(ACTIONS) if chaos.full else {SEND, DELETE})
    assert pipe.ledger.repeated() == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("action", [SEND, pytest.param(DELETE, marks=pytest.mark.whole_round)])
def test_an_entry_that_keeps_failing_does_not_hold_up_the_others(
    chaos: Chaos, make_pipe: MakePipe, action: str
) -> None:
    healed = threading.Event()
    first: dict[str, str] = {}

    def fate(entry: Entry) -> dict[str, Any] | None:
        if entry.action != action or entry.queue != "two" or healed.is_set():
            return None
        return AGAIN if entry.key == first.setdefault(action, entry.key) else None

    pipe = make_pipe("sqs", options={"lease": 30.0}, workers=8)
    partial = Partial(fate)
    pipe.weather(partial)
    groups, each = 20, 10
    pipe.ledger.feed(groups, each)
    pipe.fleet.start().said("runs on")
    begun = time.monotonic()
    others = (groups - 1) * each  # its own group waits for it
    wait_for(lambda: pipe.ledger.done() >= others, 20, lambda: f"{pipe.ledger.done()} of {others} done")
    seconds = time.monotonic() - begun
    healed.set()
    pipe.ledger.settle(60)
    pipe.fleet.end()
    chaos.settled(
        f"5 partial: one keeps failing, {action}", "sqs", pipe, faults=len(partial.failed), seconds=seconds
    )
    partial.check(soonest=0.0)
    assert pipe.ledger.repeated() == 0


@pytest.mark.whole_round
@pytest.mark.timeout(120)
def test_an_entry_that_is_refused_for_good_is_a_dead_letter_with_the_reason(
    chaos: Chaos, make_pipe: MakePipe
) -> None:
    refused = {"group": "g3", "n": 2}

    def fate(entry: Entry) -> dict[str, Any] | None:
        return NEVER if entry.queue == "two" and entry.value == refused else None

    pipe = make_pipe("sqs", options={"lease": 240.0})
    partial = Partial(fate)
    pipe.weather(partial)
    pipe.ledger.feed(groups=10, each=5)
    pipe.fleet.start()
    seconds = pipe.ledger.settle(60)
    pipe.fleet.end()
    (letter,) = pipe.ledger.client.dead_letters("one")
    assert letter.value == refused
    assert "InvalidMessageContents: provoked by the test" in letter.error
    assert len(partial.failed) == 1
    chaos.settled("5 partial: refused for good", "sqs", pipe, faults=1, seconds=seconds)


@pytest.mark.whole_round
@pytest.mark.timeout(120)
def test_an_acknowledgement_or_an_extend_that_is_refused_for_good_repeats_no_call(
    chaos: Chaos, make_pipe: MakePipe
) -> None:
    refused: Counter[str] = Counter()

    def fate(entry: Entry) -> dict[str, Any] | None:
        if entry.action not in (DELETE, EXTEND) or entry.queue != "one" or refused[entry.action] == 3:
            return None
        refused[entry.action] += 1
        return NEVER

    # Calls longer than half a lease: each is to be extended, and ends after the lease if it is not.
    pipe = make_pipe("sqs", options={"lease": 5.0}, workers=4)
    pipe.weather(partial := Partial(fate))
    pipe.ledger.feed(groups=4, each=2)
    pipe.fleet.start(tasks=["one"], seconds=6.0)
    pipe.fleet.start(tasks=["two", "three"])
    seconds = pipe.ledger.settle(60)
    pipe.fleet.end()
    chaos.settled("5 partial: refused ack, extend", "sqs", pipe, faults=len(partial.failed), seconds=seconds)
    assert refused == {DELETE: 3, EXTEND: 3}
