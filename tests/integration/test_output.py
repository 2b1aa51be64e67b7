"""The output: results in a queue of their own, read one by one or as they come."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any

import pytest

from sqspipes import OptionError, TaskClient
from sqspipes.brokers.base import Answer, Entry
from sqspipes.brokers.sqlite import SqliteBroker
from sqspipes.messages.message import Delivery
from tests.integration.support import PATIENCE, ROOT, child_environment, piped, run_until, until


def double(value: int) -> int:
    """Return twice the value."""
    return 2 * value


def test_results_wait_in_a_queue_of_their_own(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, double, output="doubled") as client:
        assert client.queue_names[-2:] == [
            f"{domain}--output--doubled.fifo",
            f"{domain}--output--doubled--dead.fifo",
        ]
        client.put_many([1, 2, 3], group="g")
        run_until(client, done=3)
        with client.results(timeout=10) as results:
            assert [next(results) for _ in range(3)] == [2, 4, 6]


def test_result_that_was_read_does_not_come_again_and_the_one_under_way_does(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    with piped(domain, pipe_broker, double, output="doubled") as client:
        client.put_many([1, 2, 3], group="g")
        run_until(client, done=3)
        read = []

        def break_at(value: int) -> None:
            read.append(value)
            if value == 4:
                raise RuntimeError("the reader broke")

        with pytest.raises(RuntimeError, match="reader"), client.results(timeout=10) as results:
            list(map(break_at, results))
        assert read == [2, 4]
        with client.results(timeout=10) as results:
            assert [next(results), next(results)] == [4, 6]


def test_reading_ends_after_the_timeout(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, double, output="doubled") as client:
        began = time.monotonic()
        assert list(client.results(timeout=0.5)) == []
        assert 0.5 <= time.monotonic() - began < 15


def test_one_result_is_acknowledged_before_it_is_returned(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, double, output="doubled") as client:
        client.put_many([1, 2], group="g")
        run_until(client, done=2)
        assert [client.get_result(10), client.get_result(10)] == [2, 4]
        until(lambda: not client.status().levels[-1].in_flight)
        assert client.status().levels[-1].waiting == 0
        assert client.get_result(0.0) is None


def test_results_are_read_while_the_pipe_runs_in_another_process(domain: str, tmp_path: Any) -> None:
    program = """
        import sys
        from sqspipes import TaskClient

        def double(value):
            return 2 * value

        TaskClient(sys.argv[1], broker=sys.argv[2], output="doubled").register_tasks([double]).run(drain=True)
    """
    url = f"sqlite:///{tmp_path}/pipe.db"
    with TaskClient(domain, broker=url, output="doubled") as client:
        client.register_tasks([{"name": "double"}])
        client.put_many(range(100))
        command = [sys.executable, "-c", textwrap.dedent(program), domain, url]
        with subprocess.Popen(command, env=child_environment(), cwd=ROOT) as process:
            with client.results(timeout=15) as results:
                found = sorted(next(results) for _ in range(100))
            assert process.wait(15) == 0
    assert found == [2 * number for number in range(100)]


def test_output_is_watched_purged_and_deleted_with_the_client(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    with piped(domain, pipe_broker, double, output="doubled") as client:
        client.put(1)
        run_until(client, done=1)
        last = client.status().levels[-1]
        assert (last.task, last.waiting) == ("output--doubled", 1)
        assert [task.name for task in client.tasks] == ["double"]
        assert client.status().strays == {}
        client.delete()
        assert not set(client._broker.names(f"{domain}--")) & set(client.queue_names)


def test_other_clients_of_the_domain_see_the_output_as_a_stray(domain: str, tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/pipe.db"
    with piped(domain, {"broker": url}, double, output="doubled") as client:
        client.put(1)
        run_until(client, done=1)
    with piped(domain, {"broker": url}, double) as other:
        assert other.status().strays == {f"{domain}--output--doubled.fifo": 1}


def test_iterating_gives_the_same_results_too(domain: str) -> None:
    with piped(domain, {"broker": "memory://"}, double, output="doubled") as client:
        client.put(1)
        with client.run(iterate=True) as results:
            assert next(results) == 2
        assert client.get_result(5) == 2


def test_source_alone_has_its_results_in_the_output(domain: str) -> None:
    def numbers() -> Any:
        yield from (1, 2)

    with piped(domain, {"broker": "memory://"}, numbers, output="found") as client:
        client.run(drain=True)
        assert [client.get_result(5), client.get_result(5)] == [1, 2]


def test_text_that_is_no_message_is_a_result_as_it_is(domain: str) -> None:
    from sqspipes.brokers.base import Entry

    with piped(domain, {"broker": "memory://"}, double, output="doubled") as client:
        client.create_queues()
        client._broker.send(client.queue_names[-2], [Entry("not { json", "g", "1")])
        assert client.get_result(5) == "not { json"


def test_client_without_an_output_says_so() -> None:
    client = TaskClient("app", broker="memory://").register_tasks([double])
    for read in (client.results, client.get_result):
        with pytest.raises(OptionError, match="this client has no output: give it one"):
            read()  # type: ignore[operator]


@pytest.mark.parametrize("name", ["", "a--b", "dead", 3, "x" * 80])
def test_name_that_no_queue_can_have_is_refused(name: Any) -> None:
    with pytest.raises(OptionError, match="output is "):
        TaskClient("app", broker="memory://", output=name)


class Losing(SqliteBroker):
    """Loses the lease of what is acknowledged first, as if that had come late."""

    def __init__(self) -> None:
        super().__init__("memory://")
        self.lost = 0

    def ack(self, queue: str, receipts: Sequence[str]) -> list[Answer]:
        """Acknowledge, but not the first time."""
        if not self.lost:
            self.lost += 1
            self.extend(queue, [(receipt, 0.0) for receipt in receipts])
        return super().ack(queue, receipts)


def test_result_whose_lease_was_lost_is_taken_when_it_comes_again(domain: str) -> None:
    broker = Losing()
    with piped(domain, {"broker": broker}, {"name": "double", "method": double}, output="doubled") as client:
        client.create_queues()
        broker.send(client.queue_names[-2], [Entry("7", "g", "1")])
        assert client.get_result(timeout=PATIENCE) == 7
        assert broker.lost == 1
        assert client.get_result(timeout=0) is None
    broker.close()


def test_results_of_a_newer_format_come_again_and_again_and_the_wait_ends_in_time(domain: str) -> None:
    """A lease of theirs is over every second: each receive brings one of them."""
    clock = Ahead()
    broker = SqliteBroker("memory://", clock=clock)
    received = broker.receive

    def receive(queue: str, **options: Any) -> list[Delivery]:
        clock.seconds += 60.0  # what was taken before comes back
        return received(queue, **options)

    broker.receive = receive  # type: ignore[method-assign]
    with piped(domain, {"broker": broker}, {"name": "double", "method": double}, output="doubled") as client:
        client.create_queues()
        broker.send(client.queue_names[-2], [Entry('{"sqspipes": 99, "id": "a", "value": 1}', "g", "1")])
        began = time.monotonic()
        assert client.get_result(timeout=0.5) is None
        assert time.monotonic() - began < PATIENCE
    broker.close()


class Ahead:
    """A clock that can be set forward."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return time.time() + self.seconds
