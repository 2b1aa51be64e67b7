"""put and put_many: ids, groups and levels, what is refused before anything is sent, and a broker that is away."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sqspipes import (
    BrokerUnavailableError,
    EncodingError,
    OptionError,
    PutError,
    SqspipesError,
    TaskClient,
    TooLargeError,
)
from sqspipes.brokers.base import Answer, Entry, Kind, QueueSpec
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.defaults import LETTER_BYTES
from tests.conftest import AWS
from tests.integration.support import PATIENCE, Seen, levels, piped, run_until, waiting
from tests.servers import (
    Forward,
    Proxy,
    Reply,
    Request,
    error,
    forwarded,
    free_port,
    lost_answer,
    lost_request,
)

MEMORY = {"broker": "memory://"}
SQS = {"broker": "sqs://", **AWS}


def task(value: Any) -> None:
    """Take a value."""


# One by one


def test_put_goes_to_the_first_task(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, task, {"method": task, "name": "second"}) as client:
        client.put(1)
        assert (waiting(client, "task"), waiting(client, "second")) == (1, 0)


@pytest.mark.parametrize("name", ["second", 1, -1])
def test_put_goes_to_the_task_it_names(name: Any, domain: str) -> None:
    with piped(domain, MEMORY, task, {"method": task, "name": "second"}) as client:
        client.put(1, task=name)
        assert (waiting(client, "task"), waiting(client, "second")) == (0, 1)


def test_put_goes_to_the_level_it_names(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, {"method": task, "priorities": 3}) as client:
        for priority in (0, 2, 2):
            client.put(priority, priority=priority)
        assert levels(client, "task") == [1, 0, 2]


def test_put_returns_the_id(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, task) as client:
        assert client.put(1, id="order 1/ä") == "order 1/ä"
        assert client.put(1, id=17) == "17"
        first, second = client.put(1), client.put(1)
        assert first != second
        assert waiting(client, "task") == 4


def test_same_id_again_is_accepted_and_not_stored(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, task) as client:
        assert [client.put(n, id="one", group="g") for n in range(3)] == ["one"] * 3
        assert [client.put(n, id="two") for n in range(3)] == ["two"] * 3
        assert waiting(client, "task") == 2


def test_same_id_in_another_task_level_or_group_is_stored(domain: str, pipe_broker: dict[str, Any]) -> None:
    tasks = [{"method": task, "priorities": 2}, {"method": task, "name": "second"}]
    with piped(domain, pipe_broker, *tasks) as client:
        client.put(1, id="one")
        client.put(1, id="one", group="g")
        client.put(1, id="one", priority=1)
        client.put(1, id="one", task="second")
        assert (levels(client, "task"), waiting(client, "second")) == ([2, 1], 1)


def test_messages_of_a_group_are_called_in_order(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()
    with piped(domain, pipe_broker, {"method": seen.take, "workers": 8}) as client:
        for number in range(15):
            client.put(number, group="one")
        with client.start():
            assert seen.wait(15) == list(range(15))


@pytest.mark.parametrize("name", ["plain", 12, "two words", "ä" * 1000, "\ud800"])
def test_group_and_id_may_be_any_text_or_an_int(name: Any, domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, task) as client:
        assert client.put(1, group=name, id=name) == str(name)
        client.put(2, group=name, id=name)
        assert waiting(client, "task") == 1


# Errors before anything is sent


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"value": {"a": {1, 2}}}, EncodingError, r"value is not JSON: \$\.a is a set"),
        ({"value": float("nan")}, EncodingError, r"\$ is nan"),
        ({"value": "x" * 1_048_576}, TooLargeError, "value is too large.*allowed are 1,040,384"),
        ({"value": 1, "task": "tsk"}, OptionError, r"'tsk' is not registered.*did you mean 'task'\?"),
        ({"value": 1, "priority": 2}, OptionError, "'task': priority is 2.*0 to 1"),
        ({"value": 1, "priority": -1}, OptionError, "priority is -1"),
        ({"value": 1, "group": ""}, OptionError, "group is"),
        ({"value": 1, "group": 1.5}, OptionError, "group is 1.5"),
        ({"value": 1, "id": "x" * 1001}, OptionError, "id is a text of 1001 characters"),
        ({"value": 1, "timeout": -1}, OptionError, "timeout is -1"),
    ],
)
def test_wrong_put_is_refused_before_anything_is_sent(
    arguments: dict[str, Any], kind: type[Exception], text: str, domain: str, proxy: Proxy
) -> None:
    with piped(domain, SQS, {"method": task, "priorities": 2}, endpoint_url=proxy.url) as client:
        with pytest.raises(kind, match=text) as caught:
            client.put(**arguments)
        assert isinstance(caught.value, SqspipesError)
        assert isinstance(caught.value, ValueError)
    assert proxy.counts["SendMessageBatch"] == 0


def test_source_takes_no_value(domain: str) -> None:
    with piped(domain, MEMORY, {"method": lambda: 1, "name": "tick", "interval": 1}, task) as client:
        for put in (client.put, lambda value: client.put_many([value])):
            with pytest.raises(OptionError, match="'tick' is a source"):
                put(1)


def test_client_without_tasks_says_what_is_missing(domain: str) -> None:
    with pytest.raises(OptionError, match="register_tasks"):
        TaskClient(domain, broker="memory://").put(1)


def test_largest_value_that_is_taken_can_also_become_a_dead_letter(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    seen = Seen()

    def fail(value: str) -> None:
        seen.take(len(value))
        raise ValueError("\x00" * 5_000)

    with piped(domain, pipe_broker, fail, retries=0) as client:
        size = 1_048_576 - LETTER_BYTES - 200
        client.put("x" * size)
        with client.start():
            seen.wait(1)
        (letter,) = client.dead_letters()
    assert len(letter.value) == size
    assert letter.error_type == "ValueError"


# The broker is away


def test_put_gives_up_after_its_timeout_with_the_id(domain: str) -> None:
    away = {**SQS, "endpoint_url": f"http://127.0.0.1:{free_port()}"}
    with piped(domain, away, task) as client:
        with pytest.raises(BrokerUnavailableError) as caught:
            client.put(1, id="one", timeout=0.3)
        assert caught.value.id == "one"
        with pytest.raises(BrokerUnavailableError) as caught:
            client.put(1, timeout=0.3)
        assert caught.value.id


def test_put_gives_up_when_the_broker_goes_away_later(domain: str, proxy: Proxy) -> None:
    with piped(domain, SQS, task, endpoint_url=proxy.url) as client:
        client.create_queues()
        proxy.always("SendMessageBatch", error(503, "ServiceUnavailable"))
        with pytest.raises(
            BrokerUnavailableError, match=r"one.*putting it again with this id is safe"
        ) as caught:
            client.put(1, id="one", timeout=0.3)
        assert caught.value.id == "one"
        assert proxy.counts["SendMessageBatch"] > 1


def test_put_tries_again_until_it_gets_through(domain: str, proxy: Proxy) -> None:
    with piped(domain, SQS, task, endpoint_url=proxy.url) as client:
        client.create_queues()
        proxy.plan("SendMessageBatch", lost_request, error(503, "ServiceUnavailable"), lost_answer)
        client.put(1)
        assert proxy.counts["SendMessageBatch"] == 4
        assert waiting(client, "task") == 1


def test_queues_of_a_put_are_made_as_soon_as_the_broker_answers(domain: str, proxy: Proxy) -> None:
    with piped(domain, SQS, task, endpoint_url=proxy.url) as client:
        proxy.plan("GetQueueUrl", lost_request, error(503, "ServiceUnavailable"))
        proxy.plan("CreateQueue", error(503, "ServiceUnavailable"))
        client.put(1)
        assert waiting(client, "task") == 1


def test_put_repeated_with_the_id_of_the_error_is_stored_once(domain: str, proxy: Proxy) -> None:
    with piped(domain, SQS, task, endpoint_url=proxy.url) as client:
        client.create_queues()
        proxy.always("SendMessageBatch", lost_answer)
        with pytest.raises(BrokerUnavailableError) as caught:
            client.put(1, timeout=0.2)
        proxy.always("SendMessageBatch", forwarded)
        assert client.put(1, id=caught.value.id) == caught.value.id
        assert waiting(client, "task") == 1


# Many


def test_put_many_puts_all_and_says_how_many(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, task) as client:
        assert client.put_many(iter(range(101))) == 101
        assert waiting(client, "task") == 101
        assert client.put_many([]) == 0


def test_put_many_takes_functions_of_the_value(domain: str) -> None:
    seen = Seen()

    def fail(value: Any) -> None:
        raise ValueError

    options = {"group": lambda v: v["who"], "id": lambda v: v["no"], "priority": lambda v: v["level"]}
    rows = [{"who": "ada", "no": 1, "level": 1}, {"who": None, "no": 2, "level": 0}]
    with piped(domain, MEMORY, {"method": fail, "priorities": 2}, seen.take, retries=0) as client:
        assert client.put_many(rows, **options) == 2
        assert client.put_many(rows, **options) == 2
        client.run(drain=True)
        letters = sorted((letter.id, letter.group, letter.priority) for letter in client.dead_letters())
    assert letters == [("1", "ada", 1), ("2", None, 0)]


def test_put_many_keeps_the_order_of_each_group(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen = Seen()
    with piped(domain, pipe_broker, {"method": seen.take, "workers": 4}) as client:
        client.put_many(range(30), group=lambda value: value % 3)
        with client.start():
            values = seen.wait(30)
    for group in range(3):
        assert [value for value in values if value % 3 == group] == list(range(group, 30, 3))


def test_put_many_fills_its_requests(domain: str, proxy: Proxy) -> None:
    with piped(domain, SQS, task, endpoint_url=proxy.url) as client:
        client.put_many(range(100))
        assert 10 <= proxy.counts["SendMessageBatch"] <= 12


def test_put_many_has_several_requests_in_flight(domain: str, proxy: Proxy) -> None:
    together = threading.Barrier(2)

    def meet(request: Request, forward: Forward) -> Reply | None:
        together.wait(PATIENCE)
        return forward(request)

    with piped(domain, SQS, task, endpoint_url=proxy.url) as client:
        client.create_queues()
        proxy.plan("SendMessageBatch", meet, meet)
        assert client.put_many(range(100)) == 100
    assert not together.broken


def test_put_many_of_one_group_sends_one_message_a_request(domain: str, proxy: Proxy) -> None:
    with piped(domain, SQS, task, endpoint_url=proxy.url) as client:
        client.put_many(range(8), group="one")
        assert proxy.counts["SendMessageBatch"] == 8


def test_put_many_draws_its_values_as_it_sends(domain: str) -> None:
    drawn = []

    def values() -> Iterator[int]:
        for number in range(5_000):
            if number == 4_000:
                drawn.append(waiting(client, "task"))
            yield number

    with piped(domain, MEMORY, task) as client:
        assert client.put_many(values()) == 5_000
    assert drawn[0] > 2_000


def test_put_many_refuses_one_id_for_all(domain: str) -> None:
    with piped(domain, MEMORY, task) as client, pytest.raises(OptionError, match=r"id is 'one'.*callable"):
        client.put_many([1, 2], id="one")  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [{1}, "x" * 1_048_576])
def test_bad_value_stops_put_many_after_what_came_before_it(
    bad: Any, domain: str, pipe_broker: dict[str, Any]
) -> None:
    with piped(domain, pipe_broker, task) as client:
        with pytest.raises(PutError) as caught:
            client.put_many(itertools.chain(range(25), [bad], range(25)))
        assert (caught.value.index, caught.value.sent) == (25, 25)
        assert isinstance(caught.value.__cause__, ValueError)
        assert waiting(client, "task") == 25


def test_iterable_that_raises_stops_put_many(domain: str) -> None:
    def rows() -> Iterator[int]:
        yield from range(7)
        raise OSError("file ends early")

    with piped(domain, MEMORY, task) as client:
        with pytest.raises(PutError, match="file ends early") as caught:
            client.put_many(rows())
        assert (caught.value.index, caught.value.sent) == (7, 7)
        assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    "wrong", [{"priority": lambda value: 7 * value}, {"group": lambda value: value * ""}]
)
def test_wrong_answer_of_a_function_stops_put_many_at_its_value(wrong: dict[str, Any], domain: str) -> None:
    with piped(domain, MEMORY, task) as client:
        with pytest.raises(PutError) as caught:
            client.put_many([0, 1] if "priority" in wrong else ["a"], **wrong)
        assert caught.value.index == caught.value.sent == (1 if "priority" in wrong else 0)


def test_put_many_tries_again_what_did_not_get_through(domain: str, proxy: Proxy) -> None:
    seen = Seen()
    with piped(domain, SQS, seen.take, endpoint_url=proxy.url) as client:
        client.create_queues()
        proxy.plan("SendMessageBatch", error(503, "ServiceUnavailable"), lost_answer, lost_request)
        assert client.put_many(range(20), group=lambda value: value % 4) == 20
        with client.start():
            values = seen.wait(20)
    for group in range(4):
        assert [value for value in values if value % 4 == group] == list(range(group, 20, 4))


def test_put_many_gives_up_after_its_timeout_and_says_how_far_it_came(domain: str, proxy: Proxy) -> None:
    with piped(domain, SQS, task, endpoint_url=proxy.url) as client:
        client.create_queues()
        proxy.plan("SendMessageBatch", forwarded, forwarded)
        proxy.always("SendMessageBatch", error(503, "ServiceUnavailable"))
        with pytest.raises(PutError) as caught:
            client.put_many(range(5), group="one", timeout=0.5)
        assert (caught.value.index, caught.value.sent) == (2, 2)
        assert isinstance(caught.value.__cause__, BrokerUnavailableError)
        assert waiting(client, "task") == 2


class Away(SqliteBroker):
    """A broker in memory that cannot be reached when queues are to be made."""

    def declare(self, specs: Sequence[QueueSpec], *, create: bool = True) -> None:
        raise BrokerUnavailableError("nobody answers")


def test_put_many_whose_broker_is_away_from_the_start_stops_at_the_first_value(domain: str) -> None:
    drawn = iter(range(5))
    with (
        piped(domain, {"broker": Away("memory://")}, task) as client,
        pytest.raises(PutError, match="stopped at value 0, 0 were sent: nobody answers") as caught,
    ):
        client.put_many(drawn, timeout=0.1)
    assert (caught.value.index, caught.value.sent) == (0, 0)
    assert isinstance(caught.value.__cause__, BrokerUnavailableError)
    assert next(drawn) == 0  # none was drawn


class Picky(SqliteBroker):
    """A broker in memory that does not take some values: not now, never, or without a word."""

    def __init__(self, values: set[int], kind: Kind | None) -> None:
        super().__init__("memory://")
        self.values = values
        self.kind = kind
        self.there: list[int] = []

    def send(self, queue: str, entries: Sequence[Entry]) -> list[Answer]:
        values = [json.loads(entry.body)["value"] for entry in entries]
        if self.kind is None and not self.values.isdisjoint(values):
            raise BrokerUnavailableError("no answer")
        taken = [entry for entry, value in zip(entries, values, strict=True) if value not in self.values]
        answers = iter(super().send(queue, taken) if taken else [])
        self.there += [value for value in values if value not in self.values]
        refused = Answer(self.kind or Kind.AGAIN, "not this one")
        return [refused if value in self.values else next(answers) for value in values]


@pytest.mark.parametrize("kind", [Kind.AGAIN, Kind.NEVER, None])
@pytest.mark.parametrize("groups", [1, 7, 100])
@pytest.mark.parametrize("missing", [{3}, {0}, {3, 40, 99}, {99}])
def test_put_many_tells_the_first_value_that_is_not_in_the_queue(
    missing: set[int], groups: int, kind: Kind | None, domain: str
) -> None:
    broker = Picky(missing, kind)
    with piped(domain, {"broker": broker}, {"name": "kept"}) as client:
        with pytest.raises(PutError) as caught:
            client.put_many(range(100), group=lambda value: value % groups, timeout=0.3)
        error = caught.value
        there = list(broker.there)
        assert error.sent == len(there)
        assert error.index == next(value for value in range(100) if value not in there)
        assert error.index == min(missing) or kind is None
        assert str(error).startswith(f"put_many stopped at value {error.index}, {error.sent} were sent: ")
        broker.values = set()
        assert (
            client.put_many(range(error.index, 100), group=lambda value: value % groups) == 100 - error.index
        )
        assert set(broker.there) == set(range(100))


def test_dict_whose_keys_collide_as_json_is_refused_wherever_it_is_given(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    def work(value: int) -> dict[Any, str]:
        return {value: "a", "1": "b"}

    seen = Seen()
    with piped(domain, pipe_broker, {"method": work, "retries": 3}, seen.take) as client:
        with pytest.raises(EncodingError, match="has the keys 1 and '1', which are one"):
            client.put({1: "a", "1": "b"})
        with pytest.raises(PutError) as error:
            client.put_many([2, {"deep": [{None: 1, "null": 2}]}])
        assert error.value.index == 1
        client.put(1)
        assert run_until(client, done=2, dead=1).failed == 1
        assert [letter.value for letter in client.dead_letters("work")] == [1]
    assert seen.values == [{"2": "a", "1": "b"}]
