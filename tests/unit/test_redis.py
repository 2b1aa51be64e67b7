"""What is special to the Redis broker: its server, its keys, its waits."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from sqspipes import TaskClient
from sqspipes.brokers.base import OK, Depth, Entry, Kind, QueueSpec
from sqspipes.brokers.redis import RedisBroker
from sqspipes.errors import BrokerError, BrokerUnavailableError, CredentialsError, QueueMissingError
from sqspipes.messages.message import Delivery
from sqspipes.testing.broker_contract.steps import PATIENCE, bodies, in_thread, kinds, put, take, take_one
from tests.relay import Relay
from tests.servers import free_port
from tests.valkey import Valkey

_ROOT = Path(__file__).parents[2]
_CERTIFICATES = Path(__file__).with_name("certificates")

Q = "domain--task.fifo"


@pytest.fixture
def open_url() -> Iterator[Callable[..., RedisBroker]]:
    """Opens brokers that are closed after the test; each has the queue ``Q``."""
    with contextlib.ExitStack() as opened:

        def open_one(url: str, clock: Callable[[], float] | None = None) -> RedisBroker:
            broker = RedisBroker(url, clock=clock)
            opened.callback(broker.close)
            broker.declare([QueueSpec(Q)])
            return broker

        yield open_one


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex[:12]


@pytest.fixture
def url(valkey: Valkey, prefix: str) -> str:
    return f"{valkey.url}?prefix={prefix}"


@pytest.fixture
def broker(url: str, open_url: Callable[..., RedisBroker]) -> RedisBroker:
    return open_url(url)


@contextlib.contextmanager
def _past_the_broker(server: Valkey) -> Iterator[Any]:
    with contextlib.closing(redis.Redis.from_url(server.url)) as client:
        yield client


@pytest.fixture
def direct(valkey: Valkey) -> Iterator[Any]:
    """The server, past the broker."""
    with _past_the_broker(valkey) as client:
        yield client


@pytest.fixture
def own() -> Iterator[Valkey]:
    """A server of the test's own, which has on disk whatever it answered."""
    with contextlib.closing(Valkey(appendfsync="always")) as server:
        yield server


def _opens_a_wait(direct: Any, count: int = 1) -> None:
    """Return once so many receives wait at the server."""
    deadline = time.monotonic() + PATIENCE
    while direct.info("clients")["blocked_clients"] < count:
        assert time.monotonic() < deadline, "no receive waits"


# The server


def test_what_was_answered_survives_a_killed_server(
    own: Valkey, open_url: Callable[..., RedisBroker]
) -> None:
    broker = open_url(own.url)
    put(broker, Q, *[f"m{i:02}" for i in range(40)], group="g")
    taken = take(broker, Q, 3)
    broker.ack(Q, [taken[0].receipt])
    broker.extend(Q, [(taken[1].receipt, 0)])
    own.kill()
    own.restart()
    again = open_url(own.url)
    assert again.depth(Q) == Depth(38, 1)
    assert take(again, Q) == []
    assert kinds(again.ack(Q, [taken[0].receipt, taken[2].receipt])) == [Kind.GONE, Kind.OK]
    assert bodies(take(again, Q, 2)) == ["m01", "m03"]
    assert again.send(Q, [Entry("m00", "g", "id-m00")]) == [OK]
    assert again.depth(Q) == Depth(36, 2)


def test_broker_goes_on_when_its_server_is_back(own: Valkey, open_url: Callable[..., RedisBroker]) -> None:
    broker = open_url(own.url)
    put(broker, Q, "a")
    own.kill()
    with pytest.raises(BrokerUnavailableError):
        broker.depth(Q)
    own.restart()
    assert bodies(take(broker, Q)) == ["a"]


def test_server_that_was_restarted_meanwhile_is_no_error(
    own: Valkey, open_url: Callable[..., RedisBroker]
) -> None:
    broker = open_url(own.url)
    put(broker, Q, "a")
    own.kill()
    own.restart()
    # A connection that answered a moment ago is not looked at.
    assert take(open_url(f"{own.url}?prefix=other"), Q, wait=1.2) == []
    assert bodies(take(broker, Q)) == ["a"]


def test_receive_that_waits_ends_with_its_server(own: Valkey, open_url: Callable[..., RedisBroker]) -> None:
    broker = open_url(own.url)
    waiting = in_thread(lambda: take(broker, Q, wait=20))
    with _past_the_broker(own) as direct:
        _opens_a_wait(direct)
    own.kill()
    with pytest.raises(BrokerUnavailableError):
        waiting.result(PATIENCE)


def test_server_that_is_not_there_is_named_without_a_password() -> None:
    port = free_port()
    broker = RedisBroker(f"redis://:secret@127.0.0.1:{port}")
    with pytest.raises(BrokerUnavailableError, match=f"127.0.0.1:{port}") as caught:
        broker.names("")
    assert "secret" not in str(caught.value)


def test_wrong_password_is_an_error_of_credentials(open_url: Callable[..., RedisBroker]) -> None:
    with contextlib.closing(Valkey(requirepass="right")) as server:
        port = server.port
        for user in (":wrong@", "somebody:wrong@", ""):
            with pytest.raises(CredentialsError) as caught:
                RedisBroker(f"redis://{user}127.0.0.1:{port}").names("")
            assert "wrong" not in str(caught.value).replace("wrong number", "")
        open_url(f"redis://:right@127.0.0.1:{port}")


def test_missing_right_is_an_error_of_credentials(own: Valkey) -> None:
    with _past_the_broker(own) as direct:
        direct.execute_command(
            "ACL", "SETUSER", "reader", "on", ">word", "~sqspipes*", "+@read", "+@connection"
        )
    with contextlib.closing(RedisBroker(f"redis://reader:word@127.0.0.1:{own.port}")) as broker:
        assert broker.names("") == []
        with pytest.raises(CredentialsError):
            broker.declare([QueueSpec(Q)])


def test_rights_of_the_guide_suffice(own: Valkey, open_url: Callable[..., RedisBroker]) -> None:
    granted = ["~sqspipes:*", "~sqspipes", *["+@read", "+@write", "+@scripting", "+@connection", "+time"]]
    with _past_the_broker(own) as direct:
        direct.execute_command("ACL", "SETUSER", "worker", "on", ">word", *granted)
    broker = open_url(f"redis://worker:word@127.0.0.1:{own.port}")
    put(broker, Q, "a", "b")
    first, second = take(broker, Q, wait=1)
    broker.ack(Q, [first.receipt])
    broker.extend(Q, [(second.receipt, 0)])
    assert broker.depth(Q) == Depth(1, 0)
    assert broker.names("domain") == [Q]
    broker.purge(Q)
    assert take(broker, Q, wait=0.1) == []
    broker.delete(Q)


def test_full_server_takes_nothing_in_and_gives_everything_out(
    own: Valkey, open_url: Callable[..., RedisBroker]
) -> None:
    broker = open_url(own.url)
    dead = "domain--task--dead.fifo"
    broker.declare([QueueSpec("dying", dead_letters=dead, max_receives=1), QueueSpec(dead)])
    put(broker, Q, "a", "b", "c", group="g")
    put(broker, "dying", "x")
    broker.extend("dying", [(take_one(broker, "dying").receipt, 0)])
    with _past_the_broker(own) as direct:
        direct.config_set("maxmemory", "1")
        with pytest.raises(BrokerUnavailableError):
            broker.send(Q, [Entry("d", "g", "id")])
        first, second = take(broker, Q, 2)
        assert broker.extend(Q, [(first.receipt, 60.0)]) == [OK]
        assert broker.ack(Q, [first.receipt, second.receipt]) == [OK, OK]
        assert take(broker, "dying") == []
        assert bodies(take(broker, dead)) == ["x"]
        broker.purge(dead)
        assert bodies(take(broker, Q)) == ["c"]
        broker.tag(Q, {"a": "1"})
        assert broker.tags(Q) == {"a": "1"}


def test_run_starts_on_a_full_server_and_gives_everything_out(
    own: Valkey, open_url: Callable[..., RedisBroker]
) -> None:
    broker = open_url(own.url)
    got: list[int] = []
    tasks: list[Any] = [{"method": got.append, "name": "last", "priorities": 2}]
    with TaskClient("full", broker=own.url, tags={"a": "b"}).register_tasks(tasks) as first:
        first.put_many(range(100))
    with (
        _past_the_broker(own) as direct,
        TaskClient("full", broker=own.url, tags={"a": "b"}).register_tasks(tasks) as client,
    ):
        direct.config_set("maxmemory", "1")
        assert client.run(drain=True).done == 100
        # What is not there yet cannot be made, and that may pass.
        with pytest.raises(BrokerUnavailableError):
            broker.declare([QueueSpec("new")])
    assert sorted(got) == list(range(100))


def test_replica_is_waited_for_until_it_is_the_primary(
    own: Valkey, open_url: Callable[..., RedisBroker]
) -> None:
    broker = open_url(own.url)
    with _past_the_broker(own) as direct:
        direct.replicaof("127.0.0.1", str(free_port()))
        with pytest.raises(BrokerUnavailableError):
            broker.send(Q, [Entry("a", "g", "id")])
        direct.replicaof("NO", "ONE")
    assert broker.send(Q, [Entry("a", "g", "id")]) == [OK]


def test_scripts_that_the_server_forgot_are_sent_again(
    own: Valkey, open_url: Callable[..., RedisBroker]
) -> None:
    broker = open_url(own.url)
    put(broker, Q, "a")
    with _past_the_broker(own) as direct:
        direct.script_flush()
    put(broker, Q, "b")
    assert sorted(bodies(take(broker, Q))) == ["a", "b"]


def test_rediss_is_spoken_to_a_server_that_proves_who_it_is(
    valkey: Valkey, prefix: str, open_url: Callable[..., RedisBroker]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_CERTIFICATES / "server.pem")
    with contextlib.closing(Relay(valkey.port, context)) as relay:
        url = f"rediss://localhost:{relay.port}?prefix={prefix}&ssl_ca_certs={_CERTIFICATES}"
        broker = open_url(f"{url}/authority.pem")
        put(broker, Q, "a")
        assert bodies(take(broker, Q)) == ["a"]
        waiting = in_thread(lambda: take(broker, Q, wait=20))
        put(broker, Q, "b")
        assert bodies(waiting.result(PATIENCE)) == ["b"]
        with pytest.raises(BrokerError, match=r"(?i)certificate"):
            open_url(f"{url}/other.pem")


@pytest.mark.parametrize(
    ("host", "authority", "known"),
    [("127.0.0.1", "authority", False), ("localhost", "other", False), ("localhost", "authority", True)],
)
def test_password_is_sent_to_nobody_else_than_the_host(host: str, authority: str, known: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_CERTIFICATES / "server.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> bytes:
            plain, _ = listener.accept()
            with plain, contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as server:
                return server.recv(65536)
            return b""

        received, port = in_thread(serve), listener.getsockname()[1]
        url = f"rediss://u:PASSWORD@{host}:{port}?ssl_ca_certs={_CERTIFICATES}/{authority}.pem"
        with contextlib.closing(RedisBroker(url)) as broker, pytest.raises(BrokerError):
            broker.names("")
        assert (b"PASSWORD" in received.result(PATIENCE)) == known


def test_interrupt_ends_a_wait_over_tls(
    valkey: Valkey, prefix: str, direct: Any, open_url: Callable[..., RedisBroker]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_CERTIFICATES / "server.pem")
    with contextlib.closing(Relay(valkey.port, context)) as relay:
        ours = f"prefix={prefix}&ssl_ca_certs={_CERTIFICATES}/authority.pem"
        broker = open_url(f"rediss://localhost:{relay.port}?{ours}")
        waiting = in_thread(lambda: take(broker, Q, wait=20))
        _opens_a_wait(direct)
        began = time.monotonic()
        broker.interrupt()
        assert waiting.result(PATIENCE) == []
        assert time.monotonic() - began < 1


# Answers that are lost


def test_receive_whose_answer_was_lost_gives_the_same_messages_again(
    valkey: Valkey, prefix: str, open_url: Callable[..., RedisBroker]
) -> None:
    with contextlib.closing(Relay(valkey.port)) as relay:
        broker = open_url(f"redis://127.0.0.1:{relay.port}?prefix={prefix}")
        put(broker, Q, "a", "b", "c", group="g")
        relay.lose_answer()
        with pytest.raises(BrokerUnavailableError):
            broker.receive(Q, count=2, wait=0, lease=30, attempt="first")
        assert relay.lost.is_set()
        again = broker.receive(Q, count=2, wait=0, lease=30, attempt="first")
        assert [(each.body, each.receives) for each in again] == [("a", 1), ("b", 1)]
        assert broker.ack(Q, [each.receipt for each in again]) == [OK, OK]


def _tried(broker: RedisBroker, attempt: str, lease: float = 30.0) -> list[Delivery]:
    return broker.receive(Q, count=10, wait=0, lease=lease, attempt=attempt)


def test_repeated_attempt_begins_the_lease_anew(url: str, open_url: Callable[..., RedisBroker]) -> None:
    now = 1_000_000.0
    broker = open_url(url, clock=lambda: now)
    put(broker, Q, "a")
    (first,) = _tried(broker, "one")
    now += 20
    assert _tried(broker, "one") == [first]
    now += 20
    assert _tried(broker, "two") == []
    assert broker.ack(Q, [first.receipt]) == [OK]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda broker, receipt: broker.ack(Q, [receipt]), id="ack"),
        pytest.param(lambda broker, receipt: broker.extend(Q, [(receipt, 50)]), id="extend"),
        pytest.param(lambda broker, receipt: broker.purge(Q), id="purge"),
    ],
)
def test_attempt_of_which_a_message_changed_gives_nothing_again(
    url: str, open_url: Callable[..., RedisBroker], change: Callable[[RedisBroker, str], object]
) -> None:
    broker = open_url(url, clock=lambda: 1_000_000.0)
    put(broker, Q, "a", "b")
    first, _ = _tried(broker, "one")
    change(broker, first.receipt)
    assert _tried(broker, "one") == []


def test_attempt_whose_message_was_given_back_takes_it_as_a_new_one(
    url: str, open_url: Callable[..., RedisBroker]
) -> None:
    broker = open_url(url, clock=lambda: 1_000_000.0)
    put(broker, Q, "a")
    (first,) = _tried(broker, "one")
    broker.extend(Q, [(first.receipt, 0)])
    (second,) = _tried(broker, "two")
    assert (second.receives, _tried(broker, "one")) == (2, [])


# Waiting


def test_interrupt_ends_a_wait_at_once(broker: RedisBroker, direct: Any) -> None:
    waiting = in_thread(lambda: take(broker, Q, wait=20))
    _opens_a_wait(direct)
    began = time.monotonic()
    broker.interrupt()
    assert waiting.result(PATIENCE) == []
    assert time.monotonic() - began < 1


def test_interrupt_leaves_connections_that_work(broker: RedisBroker, direct: Any) -> None:
    for _ in range(3):
        waiting = in_thread(lambda: take(broker, Q, wait=20))
        _opens_a_wait(direct)
        broker.interrupt()
        waiting.result(PATIENCE)
        assert broker.depth(Q) == Depth(0, 0)


def test_waiting_costs_no_requests(broker: RedisBroker, direct: Any) -> None:
    take(broker, Q)
    before = direct.info("stats")["total_commands_processed"]
    assert take(broker, Q, wait=1.0) == []
    # The script, what it calls, the wait, and the question itself.
    assert direct.info("stats")["total_commands_processed"] - before < 30


def test_each_of_the_receives_that_wait_gets_a_message(broker: RedisBroker, direct: Any) -> None:
    waiting = [in_thread(lambda: take(broker, Q, 1, wait=20)) for _ in range(3)]
    _opens_a_wait(direct, 3)
    began = time.monotonic()
    put(broker, Q, *"abc")
    assert sorted(body for each in waiting for body in bodies(each.result(PATIENCE))) == ["a", "b", "c"]
    assert time.monotonic() - began < 3


def test_waiting_receive_hears_of_a_lease_that_ends_soon(broker: RedisBroker, direct: Any, url: str) -> None:
    put(broker, Q, "a", "b", group="g")
    held = take_one(broker, Q)
    waiting = in_thread(lambda: take(broker, Q, wait=20))
    _opens_a_wait(direct)
    began = time.monotonic()
    broker.extend(Q, [(held.receipt, 0.5)])
    assert bodies(waiting.result(PATIENCE)) == ["a", "b"]
    assert 0.4 < time.monotonic() - began < 2


def test_waiting_receive_ends_when_its_queue_is_deleted(broker: RedisBroker, direct: Any) -> None:
    waiting = in_thread(lambda: take(broker, Q, wait=20))
    _opens_a_wait(direct)
    began = time.monotonic()
    broker.delete(Q)
    with pytest.raises(QueueMissingError):
        waiting.result(PATIENCE)
    assert time.monotonic() - began < 2


# Processes

_SENDER = """
import sys
from sqspipes.brokers import open_broker
from sqspipes.brokers.base import Entry
broker = open_broker(sys.argv[1])
broker.send(sys.argv[2], [Entry("a", "g", "id")])
broker.close()
"""


def test_waiting_receive_sees_what_another_process_sends(broker: RedisBroker, url: str) -> None:
    waiting = in_thread(lambda: take(broker, Q, wait=20))
    subprocess.run([sys.executable, "-c", _SENDER, url, Q], check=True, cwd=_ROOT, timeout=60)
    assert bodies(waiting.result(PATIENCE)) == ["a"]


_FORK = """
import os, sys
import redis
from sqspipes.testing.broker_contract.steps import in_thread, put, take
from sqspipes.brokers import open_broker
broker, queue = open_broker(sys.argv[1]), sys.argv[2]
direct = redis.Redis.from_url(sys.argv[1].partition("?")[0])
waiting = in_thread(lambda: take(broker, queue, wait=20))
while not direct.info("clients")["blocked_clients"]:
    pass
child = os.fork()
if child == 0:
    broker.interrupt()
    broker.names("")
    broker.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
put(broker, queue, "a")
print([delivery.body for delivery in waiting.result(15)])
broker.close()
"""


def test_forked_child_leaves_the_waits_of_its_parent_alone(broker: RedisBroker, url: str) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORK, url, Q]
    ended = subprocess.run(command, check=False, cwd=_ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "['a']\n"), ended.stderr


# Keys


def _keys(direct: Any, prefix: str) -> set[str]:
    return {key.decode() for key in direct.scan_iter("*") if key.startswith(prefix.encode())}


def test_every_key_begins_with_the_prefix(own: Valkey, open_url: Callable[..., RedisBroker]) -> None:
    broker = open_url(f"{own.url}?prefix=mine")
    put(broker, Q, "a", "b", group="g")
    take_one(broker, Q)
    with _past_the_broker(own) as direct:
        assert {key.decode().partition(":")[0] for key in direct.scan_iter("*")} == {"mine"}


def test_deleted_queue_leaves_nothing_for_long(broker: RedisBroker, direct: Any, prefix: str) -> None:
    put(broker, Q, "a", "b", "c", group="g")
    held = take_one(broker, Q)
    broker.extend(Q, [(held.receipt, 0)])
    take(broker, Q, lease=60)
    broker.delete(Q)
    left = _keys(direct, prefix)
    assert all(0 < direct.ttl(key) <= 300 for key in left), left


def test_ids_expire(broker: RedisBroker, direct: Any, prefix: str) -> None:
    put(broker, Q, *"abc")
    ids = [key for key in _keys(direct, prefix) if ":ids:" in key]
    assert ids and all(0 < direct.ttl(key) <= 600 for key in ids)


def test_messages_that_are_gone_leave_no_memory(broker: RedisBroker, direct: Any, prefix: str) -> None:
    put(broker, Q, *[f"m{i}" for i in range(30)], group="g")
    put(broker, Q, *[f"n{i}" for i in range(30)])
    while deliveries := take(broker, Q, 7):
        assert set(broker.ack(Q, [each.receipt for each in deliveries])) == {OK}
    kept = {key.split(":")[-1] for key in _keys(direct, prefix) if ":ids:" not in key and ":try:" not in key}
    assert kept == {"queues", "last", Q}


def test_tags_are_kept(broker: RedisBroker, direct: Any, prefix: str) -> None:
    broker.declare([QueueSpec("tagged", tags={"sqspipes:domain": "domain"})])
    assert direct.hget(f"{prefix}:tags", "tagged") == b'{"sqspipes:domain": "domain"}'


def _calls(own: Valkey, use: Callable[[], object]) -> int:
    """Count the calls that a step makes at the server, those inside its script too."""
    with _past_the_broker(own) as direct:
        direct.config_resetstat()
        use()
        stats: dict[str, dict[str, int]] = direct.info("commandstats")
        return sum(each["calls"] for name, each in stats.items() if not name.startswith("cmdstat_config"))


def test_a_step_costs_the_same_whatever_waits(own: Valkey, open_url: Callable[..., RedisBroker]) -> None:
    broker = open_url(own.url)

    def step() -> None:
        put(broker, Q, *[f"{uuid.uuid4()}" for _ in range(30)])
        deliveries = take(broker, Q, 30, lease=300)
        broker.ack(Q, [each.receipt for each in deliveries])

    step()
    few = _calls(own, step)
    put(broker, Q, "first", group="one")
    take_one(broker, Q)
    for start in range(0, 3000, 30):
        put(broker, Q, *[f"m{start + i}" for i in range(30)])
        put(broker, Q, *[f"g{start + i}" for i in range(30)], group="one")
    many = _calls(own, step)
    assert many <= few + 3  # What a full queue rings for.
    # Ninety message-steps: what is called is called for all of a request.
    assert few < 50


def test_two_threads_share_no_connection(broker: RedisBroker) -> None:
    began = threading.Barrier(4)

    def use() -> bool:
        began.wait(PATIENCE)
        return all(broker.names("none") == [] and broker.depth(Q) == Depth(0, 0) for _ in range(50))

    assert all(each.result(PATIENCE) for each in [in_thread(use) for _ in range(4)])
