"""What is special to the embedded broker: its file, its processes, its speed."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from sqspipes.brokers.base import OK, Broker, Depth, Entry, Kind, QueueSpec
from sqspipes.brokers.sqlite import SqliteBroker, queues
from sqspipes.brokers.sqlite.store import Store
from sqspipes.brokers.sqlite.transaction import Transaction
from sqspipes.brokers.sqlite.url import parse
from sqspipes.errors import BrokerError, BrokerUnavailableError, OptionError
from sqspipes.messages.message import Delivery
from sqspipes.support.urls import shown
from tests.patience import once_in_time

_ROOT = Path(__file__).parents[2]
_PATIENCE = 20.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/pipe.db"


@pytest.fixture
def open_url() -> Iterator[Callable[..., SqliteBroker]]:
    """Opens brokers that are closed after the test; each has the queue ``q``."""
    with contextlib.ExitStack() as opened:

        def open_one(url: str, clock: Callable[[], float] = time.time) -> SqliteBroker:
            broker = SqliteBroker(url, clock=clock)
            opened.callback(broker.close)
            broker.declare([QueueSpec("q")])
            return broker

        yield open_one


@pytest.fixture
def broker(url: str, open_url: Callable[..., SqliteBroker]) -> SqliteBroker:
    return open_url(url)


def _put(broker: Broker, *bodies: str, group: str | None = None) -> None:
    for start in range(0, len(bodies), 10):
        batch = [Entry(body, group or body, body) for body in bodies[start : start + 10]]
        assert broker.send("q", batch) == [OK] * len(batch)


def _take(
    broker: Broker, count: int = 10, *, wait: float = 0, lease: float = 30, queue: str = "q"
) -> list[Delivery]:
    return broker.receive(queue, count=count, wait=wait, lease=lease, attempt="")


def _settle(broker: Broker, deliveries: Sequence[Delivery]) -> None:
    assert broker.ack("q", [delivery.receipt for delivery in deliveries]) == [OK] * len(deliveries)


def _python(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python program that has the names of this module's imports it needs."""
    head = (
        "import os, sys, threading, time\n"
        "from sqspipes.brokers.base import Entry, QueueSpec\n"
        "from sqspipes.brokers.sqlite import SqliteBroker\n"
        # On a busy machine another process may have its turn at the file for long: that is an outage.
        "from sqspipes.operations.patience import patiently\n"
    )
    command = [sys.executable, "-c", head + script, *arguments]
    return subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _ended(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 0, error
    return out


# The URL


def test_url_shows_the_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = os.path.abspath("pipe.db")
    assert SqliteBroker("sqlite:///pipe.db").url == f"sqlite:///{path}"
    assert SqliteBroker(f"sqlite:///{path}?synchronous=FULL").url == f"sqlite:///{path}"
    assert SqliteBroker("sqlite:///pipe.db?synchronous=NORMAL").url == f"sqlite:///{path}?synchronous=NORMAL"
    assert SqliteBroker("memory://").url == "memory://"


def test_url_of_an_odd_path_leads_to_the_same_file(tmp_path: Path) -> None:
    first = SqliteBroker(f"sqlite:///{tmp_path}/a%20b%25%23%3F.db")
    assert SqliteBroker(first.url).url == first.url
    first.declare([QueueSpec("q")])
    first.close()
    assert (tmp_path / "a b%#?.db").exists()


@pytest.mark.parametrize(
    "path", ["a b.db", "%zz.db", "%FF.db", "a;b.db", "link/../c.db", "file:d.db", "./e.db"]
)
def test_url_opens_the_file_that_it_names_and_no_other(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "there", "there/inside"):
        (tmp_path / folder).mkdir()
    (tmp_path / "here/link").symlink_to(tmp_path / "there/inside")
    monkeypatch.chdir(tmp_path / "here")
    broker = SqliteBroker(f"sqlite:///{path}")
    monkeypatch.chdir(tmp_path)
    broker.declare([QueueSpec("q")])
    broker.close()
    found = [os.path.realpath(file) for file in tmp_path.rglob("*.db*") if file.name.endswith(".db")]
    assert found == [os.path.realpath(os.path.join(tmp_path, "here", os.fsdecode(unquote_to_bytes(path))))]


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("sqlite://", "sqlite:///relative.db"),
        ("sqlite:///", "sqlite:///relative.db"),
        ("sqlite://pipe.db", "sqlite:///relative.db"),
        ("sqlite:///pipe.db#q", "sqlite:///relative.db"),
        ("sqlite:///pipe%00.db", "sqlite:///relative.db"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:////", "is a directory"),
        ("sqlite:pipe.db", "sqlite:///pipe.db for this one"),
        ("sqlite:/tmp/pipe.db", "sqlite:////tmp/pipe.db for this one"),
        ("sqlite://tmp/pipe.db", "sqlite:///tmp/pipe.db for this one"),
        ("sqlite:///pi\tpe.db", "sqlite:///relative.db"),
        ("sqlite:///pipe.db#", "sqlite:///relative.db"),
        ("sqlite:///pipe.db/", "no directory"),
        ("sqlite:///tests/pipe.db/", "no directory"),
        ("sqlite:///.", "is a directory"),
        ("sqlite:////no/such/place/pipe.db", "no directory '/no/such/place'"),
        ("sqlite:///pipe.db?synchronous=OFF", "synchronous is 'OFF', allowed are FULL and NORMAL"),
        ("sqlite:///pipe.db?timeout=3", "no option 'timeout', allowed is synchronous"),
        ("memory://name", "memory:// URL takes no name"),
        ("memory://?synchronous=FULL", "memory:// URL takes no name"),
    ],
)
def test_bad_url_is_refused(url: str, named: str) -> None:
    with pytest.raises(OptionError) as caught:
        SqliteBroker(url)
    assert repr(shown(url)) in str(caught.value) and named in str(caught.value)


def test_queue_has_an_address(broker: SqliteBroker, url: str) -> None:
    assert broker.queue_url("q") == f"{url}#q"


# The file


def test_file_is_made_at_the_first_use(tmp_path: Path, url: str) -> None:
    broker = SqliteBroker(url)
    assert list(tmp_path.iterdir()) == []
    broker.declare([QueueSpec("q")])
    broker.close()
    assert (tmp_path / "pipe.db").exists()


@pytest.mark.parametrize("content", [b"a letter to my aunt" * 100, b"SQLite format 3\0" + b"\xff" * 4080])
def test_file_that_is_no_database_is_refused(tmp_path: Path, url: str, content: bytes) -> None:
    (tmp_path / "pipe.db").write_bytes(content)
    with pytest.raises(BrokerError, match=r"pipe\.db") as caught:
        SqliteBroker(url).names("")
    assert not isinstance(caught.value, BrokerUnavailableError)
    assert (tmp_path / "pipe.db").read_bytes() == content


@pytest.mark.parametrize(
    ("statement", "reason"),
    [("CREATE TABLE aunt(id)", "another program's"), ("PRAGMA application_id=7", "another program's")],
)
def test_database_of_another_program_is_refused(
    tmp_path: Path, url: str, statement: str, reason: str
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "pipe.db")) as other:
        other.execute(statement)
        other.commit()
    with pytest.raises(BrokerError, match=reason):
        SqliteBroker(url).names("")


def test_file_that_was_made_without_a_place_for_tags_is_used(
    tmp_path: Path, broker: SqliteBroker, url: str
) -> None:
    broker.declare([QueueSpec("task.fifo")])
    broker.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "pipe.db")) as other:
        other.execute("DROP TABLE tag")
    again = SqliteBroker(url)
    assert again.tags("task.fifo") == {}
    again.tag("task.fifo", {"a": "1"})
    assert again.tags("task.fifo") == {"a": "1"}
    again.close()


def test_link_leads_to_the_same_queues_and_locks(
    tmp_path: Path, broker: SqliteBroker, open_url: Callable[..., SqliteBroker]
) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "pipe.db")
    _put(broker, "a")
    assert len(_take(open_url(f"sqlite:///{tmp_path}/link.db"))) == 1
    assert {path.name for path in tmp_path.glob("link*")} == {"link.db"}


def test_receipt_of_another_file_is_gone(
    tmp_path: Path, broker: SqliteBroker, open_url: Callable[..., SqliteBroker]
) -> None:
    other = open_url(f"sqlite:///{tmp_path}/other.db")
    for each in (broker, other):
        _put(each, "a")
    receipt = _take(other)[0].receipt
    (delivery,) = _take(broker)
    assert [broker.ack("q", [receipt])[0].kind, broker.ack("q", [delivery.receipt])[0].kind] == [
        Kind.GONE,
        Kind.OK,
    ]


def test_file_that_a_foreign_program_locks_is_told_of_soon(tmp_path: Path, broker: SqliteBroker) -> None:
    _put(broker, "a")
    with contextlib.closing(sqlite3.connect(tmp_path / "pipe.db", isolation_level=None)) as foreign:
        foreign.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        with pytest.raises(BrokerUnavailableError, match="locked"):
            broker.receive("q", count=1, wait=0.0, lease=60.0, attempt="a")
        assert time.monotonic() - begun < 5
        foreign.execute("ROLLBACK")
    assert len(_take(broker)) == 1


_FULL = """
import resource, signal
from sqspipes.errors import BrokerUnavailableError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
broker = SqliteBroker(sys.argv[1])
broker.declare([QueueSpec("q")])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
entries = [Entry("x" * 300_000, "g", "id")]
try:
    broker.send("q", entries)
except BrokerUnavailableError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    broker.send("q", entries)
    print(broker.depth("q").waiting)
"""


def test_full_disk_is_unavailable_until_there_is_room(url: str) -> None:
    assert _ended(_python(_FULL, url)) == "1\n"


# Ids


def test_id_is_forgotten_after_five_minutes(url: str, open_url: Callable[..., SqliteBroker]) -> None:
    now = time.time()
    broker = open_url(url, lambda: now)
    _put(broker, "a")
    now += 299
    _put(broker, "a")
    assert broker.depth("q").waiting == 1
    now += 2
    _put(broker, "a")
    _put(broker, "a")
    assert broker.depth("q").waiting == 2


def test_old_ids_take_no_room(tmp_path: Path, url: str, open_url: Callable[..., SqliteBroker]) -> None:
    now = time.time()
    broker = open_url(url, lambda: now)
    for minute in range(12):
        now += 60
        _put(broker, *[f"{minute}-{i}" for i in range(100)])
    with contextlib.closing(sqlite3.connect(tmp_path / "pipe.db")) as database:
        ((ids,),) = database.execute("SELECT count(*) FROM seen")
    assert 500 <= ids <= 700


def test_dead_letters_of_one_group_do_not_wait_for_one_another(broker: SqliteBroker) -> None:
    broker.declare([QueueSpec("short", dead_letters="dead", max_receives=1), QueueSpec("dead")])
    broker.send("short", [Entry(str(i), "g", str(i)) for i in range(3)])
    broker.extend("short", [(delivery.receipt, 0) for delivery in _take(broker, queue="short")])
    assert _take(broker, queue="short") == []
    letters = [_take(broker, 1, queue="dead") for _ in range(3)]
    assert [(letter.body, letter.group) for (letter,) in letters] == [("0", "g"), ("1", "g"), ("2", "g")]


def test_ids_are_known_after_a_purge(broker: SqliteBroker) -> None:
    _put(broker, "a")
    broker.purge("q")
    _put(broker, "a")
    assert broker.depth("q") == Depth(0, 0)


def test_what_a_killed_purge_left_is_cleaned_up_later(tmp_path: Path, broker: SqliteBroker) -> None:
    _put(broker, *[f"{i}" for i in range(50)])
    _take(broker)
    with contextlib.closing(sqlite3.connect(tmp_path / "pipe.db")) as database:
        database.execute("UPDATE queue SET name=NULL")
        database.commit()
        broker.declare([QueueSpec("q")])
        for table in ("message", "ready", "flight"):
            assert database.execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]
        assert database.execute("SELECT name FROM queue").fetchall() == [("q",)]


def test_request_that_no_queue_takes_is_refused(broker: SqliteBroker) -> None:
    most = broker.limits.entries
    with pytest.raises(OptionError, match=f"entries is {most + 1}: allowed are 1 to {most}"):
        broker.send("q", [Entry("a", "g", str(i)) for i in range(most + 1)])
    with pytest.raises(OptionError, match="receipts is 0"):
        broker.ack("q", [])
    with pytest.raises(OptionError, match=f"count is {most + 1}"):
        _take(broker, most + 1)
    with pytest.raises(OptionError, match="lease is 43201: allowed are 0 to 43200 seconds"):
        _take(broker, lease=43_201)
    with pytest.raises(BrokerError, match="1,200,000 bytes, allowed are 1,048,576"):
        broker.send("q", [Entry("x" * 600_000, "g", str(i)) for i in range(2)])
    assert broker.depth("q").waiting == 0


def test_entry_that_no_queue_takes_is_answered_and_the_rest_is_stored(broker: SqliteBroker) -> None:
    entries = [
        Entry("a", "g", "1"),
        Entry("é" * 600_000, "g", "2"),
        Entry("\ud800", "g", "3"),
        Entry("", "g", "4"),
        Entry("e", "", "5"),
        Entry("f", "g", "with space"),
        Entry("g", "g", "7"),
    ]
    answers = broker.send("q", entries)
    assert [answer.kind for answer in answers] == [Kind.OK, *[Kind.NEVER] * 5, Kind.OK]
    assert all(answer.reason for answer in answers[1:6])
    assert [delivery.body for delivery in _take(broker)] == ["a", "g"]


# Threads


def test_request_that_fails_leaves_those_of_its_transaction_alone() -> None:
    store = Store(parse("memory://"), time.time, lambda queues: None)
    entered, go_on = threading.Event(), threading.Event()
    outcomes: dict[str, object] = {}

    def block(transaction: Transaction) -> str:
        entered.set()
        assert go_on.wait(_PATIENCE)
        return "blocked"

    def fail(transaction: Transaction) -> str:
        transaction.database.execute("INSERT INTO queue(name, max_receives) VALUES('half', 1)")
        transaction.database.execute("SELECT * FROM nowhere")
        return "never"

    def work(name: str) -> Callable[[Transaction], str]:
        def run(transaction: Transaction) -> str:
            transaction.database.execute("INSERT INTO queue(name, max_receives) VALUES(?, 1)", (name,))
            return name

        return run

    def call(name: str, requested: Callable[[Transaction], str]) -> None:
        try:
            outcomes[name] = store.write(requested)
        except Exception as error:
            outcomes[name] = type(error)

    works = {"a": work("a"), "fail": fail, "b": work("b"), "c": work("c")}
    threads = [threading.Thread(target=call, args=("first", block))]
    threads[0].start()
    assert entered.wait(_PATIENCE)
    threads += [threading.Thread(target=call, args=item) for item in works.items()]
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(_PATIENCE)
    assert outcomes == {"first": "blocked", "a": "a", "fail": outcomes["fail"], "b": "b", "c": "c"}
    assert isinstance(outcomes["fail"], type) and issubclass(outcomes["fail"], BrokerError)
    assert store.read(lambda t: queues.listed(t, "")) == ["a", "b", "c"]
    store.close()


def _latencies(sender: Broker, receiver: Broker) -> list[float]:
    """Return the seconds from a send to the end of a receive that waits in another thread."""
    latencies = []
    for i in range(8):
        ends: list[float] = []

        def receive(ends: list[float] = ends) -> None:
            _settle(receiver, _take(receiver, wait=5))
            ends.append(time.monotonic())

        thread = threading.Thread(target=receive)
        thread.start()
        _take(sender, queue="other", wait=0.06)  # The other thread is waiting by then.
        began = time.monotonic()
        _put(sender, f"m{i}")
        thread.join(_PATIENCE)
        latencies.append(ends[0] - began)
    return latencies


def test_waiting_receive_wakes_at_once_within_the_process(broker: SqliteBroker) -> None:
    broker.declare([QueueSpec("other")])

    def check() -> None:
        assert statistics.median(_latencies(broker, broker)) < 0.05

    once_in_time(check)


def test_waiting_receive_wakes_soon_for_another_process(
    url: str, broker: SqliteBroker, open_url: Callable[..., SqliteBroker]
) -> None:
    broker.declare([QueueSpec("other")])
    other = open_url(url)

    def check() -> None:
        assert statistics.median(_latencies(broker, other)) < 0.25

    once_in_time(check)


def test_waiting_receive_wakes_at_the_end_of_a_lease(broker: SqliteBroker) -> None:
    groups = itertools.count()

    def check() -> None:
        group = f"g{next(groups)}"
        _put(broker, f"a-{group}", f"b-{group}", group=group)
        _take(broker, 1, lease=0.3)
        began = time.monotonic()
        deliveries = _take(broker, wait=5)
        seconds = time.monotonic() - began
        _settle(broker, deliveries)
        found = [(delivery.body, delivery.receives) for delivery in deliveries]
        assert found == [(f"a-{group}", 2), (f"b-{group}", 1)]
        assert 0.2 < seconds < 1.0

    once_in_time(check)


def test_waiting_costs_next_to_nothing(broker: SqliteBroker) -> None:
    names = [f"q{i}" for i in range(20)]
    broker.declare([QueueSpec(name) for name in names])
    threads = [
        threading.Thread(target=lambda name=name: _take(broker, queue=name, wait=10)) for name in names
    ]
    for thread in threads:
        thread.start()
    _take(broker, wait=0.2)
    began = time.process_time()
    _take(broker, wait=1)
    used = time.process_time() - began
    broker.interrupt()
    for thread in threads:
        thread.join(_PATIENCE)
    assert used < 0.01


# Processes


_DRAIN = """
broker = SqliteBroker(sys.argv[1])
while deliveries := patiently(lambda: broker.receive("q", count=10, wait=0.3, lease=30, attempt="")):
    patiently(lambda: broker.ack("q", [delivery.receipt for delivery in deliveries]))
    print(*[delivery.body for delivery in deliveries], flush=True)
broker.close()
"""


def test_processes_share_the_messages_without_a_copy(broker: SqliteBroker, url: str) -> None:
    bodies = [f"m{i}" for i in range(200)]
    _put(broker, *bodies[:100])
    processes = [_python(_DRAIN, url) for _ in range(2)]
    _put(broker, *bodies[100:])
    outputs = [_ended(process).split() for process in processes]
    assert sorted(outputs[0] + outputs[1]) == sorted(bodies)


_SEND_FOR_EVER = """
broker = SqliteBroker(sys.argv[1])
def run(name):
    for i in range(10**9):
        bodies = [f"{name}-{i}-{k}" for k in range(10)]
        patiently(lambda: broker.send("q", [Entry(body, name, body) for body in bodies]))
        os.write(1, (" ".join(bodies) + "\\n").encode())
for k in range(3):
    threading.Thread(target=run, args=(f"{sys.argv[2]}-{k}",)).start()
"""


def test_killed_processes_lose_nothing_and_block_nobody(
    tmp_path: Path, broker: SqliteBroker, url: str
) -> None:
    processes = {name: _python(_SEND_FOR_EVER, url, name) for name in ("one", "two")}
    lines: list[str] = []
    for process in processes.values():
        assert process.stdout is not None
        lines += [process.stdout.readline().rstrip() for _ in range(20)]
    for process in processes.values():
        process.kill()
    for process in processes.values():
        lines += process.communicate(timeout=_PATIENCE)[0].splitlines()
    stored: list[str] = []
    while deliveries := _take(broker):
        stored += [delivery.body for delivery in deliveries]
        _settle(broker, deliveries)
    # Of a line that was cut off nothing is known.
    assert {body for line in lines if line.endswith("-9") for body in line.split()} <= set(stored)
    for group in [f"{name}-{k}" for name in processes for k in range(3)]:
        of_group = [body for body in stored if body.startswith(f"{group}-")]
        assert of_group == [f"{group}-{i}-{k}" for i in range(len(of_group) // 10) for k in range(10)]
    with contextlib.closing(sqlite3.connect(tmp_path / "pipe.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


_FORK = """
broker = SqliteBroker(sys.argv[1])
broker.declare([QueueSpec("q")])
def run(name):
    for i in range(60):
        patiently(lambda: broker.send("q", [Entry(f"{name}-{i}", f"{name}-{i}", f"{name}-{i}")]))
def inherited():
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.exists(link) and "pipe.db" in os.readlink(link)]
threads = [threading.Thread(target=run, args=(f"thread{k}",)) for k in range(4)]
for thread in threads:
    thread.start()
children = []
for k in range(4):
    child = os.fork()
    if child == 0:
        try:
            assert inherited() == [], inherited()
            run(f"child{k}")
            broker.close()
            os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
    children.append(child)
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
for thread in threads:
    thread.join()
print(broker.depth("q").waiting)
broker.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_fork_while_threads_write_leaves_both_processes_whole(tmp_path: Path, url: str) -> None:
    assert _ended(_python(_FORK, url)) == f"{8 * 60}\n"
    with contextlib.closing(sqlite3.connect(tmp_path / "pipe.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
