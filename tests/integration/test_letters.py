"""Dead letters: what they tell, and the ways to list, redrive and discard them."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import pytest

from sqspipes import Broker, BrokerError, DeadLetter, OptionError, TaskClient
from sqspipes.brokers.base import Entry
from sqspipes.defaults import MAX_RECEIVES
from tests.conftest import AWS, MakeBroker
from tests.integration.support import Seen, dead, levels, piped, run_until, until
from tests.servers import Proxy, error, forwarded

MEMORY = {"broker": "memory://"}


def broken(value: Any) -> None:
    """Fail, always."""
    raise ValueError(f"no {value}")


def same(value: Any) -> Any:
    """Hand a value on."""
    return value


def with_letters(domain: str, broker: dict[str, Any], values: Any, **put: Any) -> TaskClient:
    """Return a client whose only task, ``broken``, has made dead letters of some values."""
    client = piped(domain, broker, {"method": broken, "priorities": 2}, retries=0)
    client.put_many(values, **put)
    run_until(client, dead=len(values))
    return client


class Shaky:
    """A task that fails until it is mended."""

    def __init__(self) -> None:
        self.mended = threading.Event()
        self.seen = Seen()

    def work(self, value: Any) -> None:
        """Fail, or remember the value."""
        if not self.mended.is_set():
            raise ValueError(f"no {value}")
        self.seen.take(value)


# Listing


def test_letter_tells_all_about_its_message(domain: str, pipe_broker: dict[str, Any]) -> None:
    before = time.time()
    with piped(domain, pipe_broker, same, {"method": broken, "priorities": 3}, retries=1) as client:
        client.put({"no": 7}, task="broken", id="order 7", group="ada", priority=2)
        run_until(client, dead=1)
        (letter,) = client.dead_letters()
    assert isinstance(letter, DeadLetter)
    assert (letter.id, letter.task, letter.value) == ("order 7", "broken", {"no": 7})
    assert (letter.group, letter.priority, letter.attempts, letter.redrives) == ("ada", 2, 2, 0)
    assert (letter.error_type, letter.error) == ("ValueError", "no {'no': 7}")
    assert letter.traceback.startswith("Traceback")
    assert "in broken" in letter.traceback
    assert before - 1 <= letter.first_put <= letter.died <= time.time() + 1


def test_letters_of_one_task_or_of_all(domain: str) -> None:
    other = {"method": broken, "name": "other"}
    with piped(domain, MEMORY, broken, other, retries=0) as client:
        client.put(1)
        client.put(2, task="other")
        client.run(drain=True)
        assert [letter.value for letter in client.dead_letters("broken")] == [1]
        assert [letter.value for letter in client.dead_letters(1)] == [2]
        assert sorted(letter.value for letter in client.dead_letters()) == [1, 2]


def test_letters_of_an_unknown_task_are_an_error(domain: str) -> None:
    with piped(domain, MEMORY, broken) as client:
        for ask in (client.dead_letters, client.redrive, lambda task: client.discard(task, "all")):
            with pytest.raises(OptionError, match="did you mean 'broken'"):
                ask("brokn")


def test_all_letters_of_a_group_are_listed(domain: str, pipe_broker: dict[str, Any]) -> None:
    with with_letters(domain, pipe_broker, range(25), group="one") as client:
        # On SQS receives overlap, and letters are groups of their own: their order is nobody's promise.
        assert sorted(letter.value for letter in client.dead_letters()) == list(range(25))


def test_listing_gives_letters_back(domain: str, pipe_broker: dict[str, Any]) -> None:
    with with_letters(domain, pipe_broker, range(12)) as client:
        for _ in range(2):
            assert sorted(letter.value for letter in client.dead_letters()) == list(range(12))
        assert client.status().levels[0].dead == 12


def test_listing_that_is_left_early_gives_letters_back(domain: str, pipe_broker: dict[str, Any]) -> None:
    with with_letters(domain, pipe_broker, range(3)) as client:
        letters = client.dead_letters()
        next(letters)
        del letters
        assert len(list(client.dead_letters())) == 3


def test_listing_hides_letters_from_other_listings_while_it_runs(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    with with_letters(domain, pipe_broker, range(3)) as client:
        assert next(len(list(client.dead_letters())) for _ in client.dead_letters()) == 0


def test_letter_of_a_body_that_cannot_be_read_has_its_text(domain: str, broker: Broker) -> None:
    with piped(domain, {"broker": broker}, same) as client:
        client.create_queues()
        broker.send(client.queue_names[0], [Entry('{"half":', "g", "i")])
        with client.start():
            until(lambda: dead(client, "same") == 1)
            (letter,) = client.dead_letters()
            assert (letter.value, letter.error_type) == ('{"half":', "DecodingError")
            assert client.redrive() == 1
            until(lambda: dead(client, "same") == 1)
        assert [letter.value for letter in client.dead_letters()] == ['{"half":']


def test_message_that_the_broker_gave_up_is_a_letter_that_says_so(
    domain: str, make_broker: MakeBroker
) -> None:
    broker = make_broker("memory")
    with piped(domain, {"broker": broker}, same) as client:
        client.put("killer")
        for attempt in range(MAX_RECEIVES + 1):
            for delivery in broker.receive(
                client.queue_names[0], count=1, wait=0, lease=5, attempt=f"a{attempt}"
            ):
                broker.extend(client.queue_names[0], [(delivery.receipt, 0)])
        (letter,) = client.dead_letters()
    assert (letter.value, letter.error_type) == ("killer", "MaxReceives")
    assert "kill" in letter.error
    broker.close()


# Redriving


def test_redriven_letters_are_called_again_and_gone(domain: str, pipe_broker: dict[str, Any]) -> None:
    shaky = Shaky()
    with piped(domain, pipe_broker, shaky.work, retries=0) as client, client.start():
        client.put_many(range(12))
        until(lambda: dead(client, "work") == 12)
        shaky.mended.set()
        assert client.redrive() == 12
        assert list(client.dead_letters()) == []
        assert sorted(shaky.seen.wait(12)) == list(range(12))


def test_redrive_of_ids_takes_those_alone(domain: str, pipe_broker: dict[str, Any]) -> None:
    with with_letters(domain, pipe_broker, ["a", "b", "c"], id=str) as client:
        assert client.redrive(ids=["a", "c", "nobody"]) == 2
        assert levels(client, "broken") == [2, 0]
        assert [letter.id for letter in client.dead_letters()] == ["b"]


def test_redrive_of_one_task_leaves_the_others_alone(domain: str) -> None:
    other = {"method": broken, "name": "other"}
    with piped(domain, MEMORY, broken, other, retries=0) as client:
        client.put(1)
        client.put(2, task="other")
        client.run(drain=True)
        assert client.redrive("other") == 1
        assert [letter.task for letter in client.dead_letters()] == ["broken"]


@pytest.mark.parametrize("ids", ["a", [1], 7])
def test_wrong_ids_are_refused(ids: Any, domain: str) -> None:
    with piped(domain, MEMORY, broken) as client:
        for mend in (client.redrive, client.discard):
            with pytest.raises(OptionError, match="ids"):
                mend("broken", ids)


def test_redrive_restores_group_and_level(domain: str, pipe_broker: dict[str, Any]) -> None:
    with (
        piped(domain, pipe_broker, {"method": broken, "priorities": 2}, retries=0) as client,
        client.start(),
    ):
        client.put(1, group="ada", priority=1)
        client.put(2)
        until(lambda: dead(client, "broken") == 2)
        client.redrive()
        until(lambda: dead(client, "broken") == 2)
        letters = sorted((letter.value, letter.group, letter.priority) for letter in client.dead_letters())
    assert letters == [(1, "ada", 1), (2, None, 0)]


def test_redrive_keeps_the_order_of_a_group(domain: str, pipe_broker: dict[str, Any]) -> None:
    shaky = Shaky()
    with piped(domain, pipe_broker, shaky.work, retries=0) as client, client.start():
        client.put_many(range(15), group="one")
        until(lambda: dead(client, "work") == 15)
        shaky.mended.set()
        client.redrive()
        assert shaky.seen.wait(15) == list(range(15))


def test_letter_that_dies_again_is_a_new_letter_with_fresh_attempts(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    with piped(domain, pipe_broker, broken, retries=1) as client, client.start():
        client.put(1, id="one")
        until(lambda: dead(client, "broken") == 1)
        (first,) = client.dead_letters()
        for redrives in (1, 2):
            assert client.redrive() == 1
            until(lambda: dead(client, "broken") == 1)
            (letter,) = client.dead_letters()
            assert (letter.id, letter.attempts, letter.redrives) == ("one", 2, redrives)
            assert letter.first_put == first.first_put


def test_redrive_that_dies_half_way_and_is_repeated_puts_each_once(domain: str, proxy: Proxy) -> None:
    arguments = {"broker": "sqs://", **AWS, "endpoint_url": proxy.url}
    with with_letters(domain, arguments, range(12)) as client:
        proxy.always("DeleteMessageBatch", error(403, "AccessDenied"))
        with pytest.raises(BrokerError):
            client.redrive()
        assert levels(client, "broken") == [10, 0]  # the first batch
        proxy.always("DeleteMessageBatch", forwarded)
        assert client.redrive() == 12
        assert levels(client, "broken") == [12, 0]
        assert list(client.dead_letters()) == []


def test_redrive_survives_a_broker_that_hiccups(domain: str, proxy: Proxy) -> None:
    arguments = {"broker": "sqs://", **AWS, "endpoint_url": proxy.url}
    with with_letters(domain, arguments, range(3)) as client:
        for action in ("ReceiveMessage", "SendMessageBatch", "DeleteMessageBatch"):
            proxy.plan(action, error(503, "ServiceUnavailable"))
        assert client.redrive() == 3
        assert levels(client, "broken") == [3, 0]
        assert list(client.dead_letters()) == []


def test_redriven_result_goes_on_through_the_pipe_once(domain: str) -> None:
    seen, tries = Seen(), itertools.count()

    def shaky(value: int) -> int:
        if next(tries) == 0:
            raise OSError
        return value

    with piped(domain, MEMORY, shaky, seen.take, retries=0) as client:
        client.put(1, id="one")
        client.run(drain=True)
        client.redrive()
        client.run(drain=True)
    assert seen.values == [1]


# Discarding


def test_discarded_letters_are_gone(domain: str, pipe_broker: dict[str, Any]) -> None:
    with with_letters(domain, pipe_broker, ["a", "b", "c"], id=str) as client:
        assert client.discard("broken", ["a", "nobody"]) == 1
        assert sorted(letter.id for letter in client.dead_letters()) == ["b", "c"]
        assert client.discard(0, "all") == 2
        assert client.status().levels[0].dead == 0


def test_discard_needs_ids(domain: str) -> None:
    with with_letters(domain, MEMORY, ["a"]) as client:
        with pytest.raises(TypeError):
            client.discard("broken")  # type: ignore[call-arg]
        with pytest.raises(OptionError, match="ids is None"):
            client.discard("broken", None)  # type: ignore[arg-type]
        assert client.discard("broken", []) == 0
        assert len(list(client.dead_letters())) == 1
