"""What all tests share: the brokers, servers for those that need one, names of one's own."""

from __future__ import annotations

import contextlib
import gc
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from sqspipes.brokers import open_broker
from sqspipes.brokers.base import Broker
from tests.chaos.table import pytest_addoption as pytest_addoption
from tests.chaos.table import pytest_terminal_summary as pytest_terminal_summary
from tests.contract.differences import reasons
from tests.servers import Ministack, Proxy, Server
from tests.valkey import Valkey

# For a run on each of several Pythons; by hand, hypothesis looks as far as it does by default.
hypothesis.settings.register_profile("quick", max_examples=25, deadline=None)
# For a search that may take its time.
hypothesis.settings.register_profile("thorough", max_examples=400, deadline=None, print_blob=True)

BROKERS = ("memory", "sqlite", "redis", "sqs")

MakeBroker = Callable[..., Broker]
BrokerArguments = Callable[[str], dict[str, Any]]

#: SQS by either transport: sockets of our own, and boto3.
TRANSPORTS = ("sqs", "sqs_boto3")

#: Where the process that hands out the tests keeps the emulators that its workers share.
SHARED = pytest.StashKey[list[Ministack]]()

#: One emulator keeps one core busy.
MOST_SHARED = 2


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell each of several test processes where the SQS emulator is that it shares with others."""
    if node.config.option.markexpr == "not sqs":
        return
    shared = node.config.stash.setdefault(SHARED, [])
    if len(shared) < MOST_SHARED:
        shared.append(Ministack())
    shared.append(shared.pop(0))
    node.workerinput["ministack_url"] = shared[-1].url


def pytest_configure() -> None:
    """Let SIGINT reach the programs of tests: a shell's background jobs, and all that they start, ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Have no garbage collection look at the thousands of tests: in a test process each would take 0.1 s longer."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the emulators that test processes shared."""
    for server in config.stash.get(SHARED, []):
        server.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that talk to SQS, as they run on one Python only, and begin with those that take longest."""
    for item in items:
        parameters = getattr(item, "callspec", None)
        on_sqs = parameters is not None and not set(TRANSPORTS).isdisjoint(_texts(parameters.params))
        if on_sqs or {"ministack", "proxy"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.sqs)
    longest = [item for item in items if item.get_closest_marker("a_minute")]
    others = [item for item in items if not item.get_closest_marker("a_minute")]
    # Each test process begins with two tests: one of the longest is enough.
    both = min(len(longest), len(others))
    items[:] = (
        [item for pair in zip(longest, others, strict=False) for item in pair]
        + longest[both:]
        + others[both:]
    )


def leave_out(
    config: pytest.Config, items: list[pytest.Item], condition: Callable[[pytest.Item], bool]
) -> None:
    """Deselect tests."""
    left_out = [item for item in items if condition(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _texts(parameters: dict[str, Any]) -> set[str]:
    return {value for value in parameters.values() if isinstance(value, str)}


@pytest.fixture(scope="session")
def ministack(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The SQS emulator, started once; without it the tests that need it fail."""
    shared = getattr(request.config, "workerinput", {}).get("ministack_url")
    if shared:
        yield Server(shared)
        return
    server = Ministack()
    try:
        yield Server(server.url)
    finally:
        server.stop()


@pytest.fixture
def proxy(ministack: Server) -> Iterator[Proxy]:
    """A proxy before the emulator, for one test."""
    with contextlib.closing(Proxy(ministack.url)) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A Valkey server, started once; without it the tests that need it fail."""
    with contextlib.closing(Valkey()) as server:
        yield server


@pytest.fixture
def domain() -> str:
    """A domain that no other test has: tests may share a server."""
    return f"test_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def broker_arguments(request: pytest.FixtureRequest, tmp_path: Path) -> BrokerArguments:
    """A function from a broker's name to the keyword arguments of TaskClient that lead to it.

    Tests share the Valkey server: each has a prefix of its own.
    """
    prefix = uuid.uuid4().hex[:12]

    def arguments(name: str) -> dict[str, Any]:
        if name == "memory":
            return {"broker": "memory://"}
        if name == "sqlite":
            return {"broker": f"sqlite:///{tmp_path}/pipe.db"}
        if name == "redis":
            valkey: Valkey = request.getfixturevalue("valkey")
            return {"broker": f"{valkey.url}?prefix={prefix}"}
        server: Server = request.getfixturevalue("ministack")
        transport = {"transport": "boto3"} if name == "sqs_boto3" else {}
        return {"broker": "sqs://", "endpoint_url": server.url, **AWS, **transport}

    return arguments


#: An account that only the emulator knows.
AWS = {"aws_key": "x", "aws_secret": "x", "aws_region": "us-west-2"}


@pytest.fixture
def make_broker(broker_arguments: BrokerArguments) -> Iterator[MakeBroker]:
    """``make_broker("sqlite")`` opens one more broker on the test's store; all are closed after the test."""
    with contextlib.ExitStack() as opened:

        def make(name: str, **others: Any) -> Broker:
            arguments = {**broker_arguments(name), **others}
            broker = open_broker(arguments.pop("broker"), **arguments)
            opened.callback(broker.close)
            return broker

        yield make


@pytest.fixture(params=BROKERS)
def broker_name(request: pytest.FixtureRequest) -> str:
    """Each broker's name in turn; a difference that is declared is expected, strictly."""
    return named(request)


def named(request: pytest.FixtureRequest) -> str:
    """Return the name that a fixture is called with, its difference declared as expected."""
    name: str = request.param
    reason = reasons(request.node.originalname).get(name)
    if reason:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return name


@pytest.fixture
def broker(broker_name: str, make_broker: MakeBroker) -> Broker:
    """Each broker in turn, with nothing in it that the test did not put there."""
    return make_broker(broker_name)


@pytest.fixture
def pipe_broker(broker_name: str, broker_arguments: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Keyword arguments of TaskClient for each broker in turn."""
    return broker_arguments(broker_name)
