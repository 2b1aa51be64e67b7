"""What the scenarios share: chance with a seed, a pipe with its ledger, and the table at the end."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.fleet import Fleet, fleet
from tests.chaos.ledger import Ledger, RedisWitness, SqliteWitness, SqsWitness, Witness
from tests.chaos.weather import Replays, chained
from tests.conftest import leave_out
from tests.servers import Behaviour, Proxy
from tests.valkey import Valkey


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is in this folder; the hook sees the tests of all folders. Leave out what is not in a short round."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.chaos)
    if not config.getoption("--full"):
        leave_out(config, items, _is_of_the_whole_round)


def _is_of_the_whole_round(item: pytest.Item) -> bool:
    """Whether a scenario is marked so, or is one that the short round has on an embedded broker only."""
    if item.get_closest_marker("whole_round"):
        return True
    callspec = getattr(item, "callspec", None)
    on_sqs = callspec is not None and callspec.params.get("broker_name") == "sqs"
    return bool(on_sqs and item.get_closest_marker("chaos") and not item.get_closest_marker("every_broker"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a ``transport`` on each way to SQS in the whole round, on the default in the short one."""
    if "transport" in metafunc.fixturenames:
        whole = metafunc.config.getoption("--full")
        metafunc.parametrize("transport", ["lean", "boto3"] if whole else ["lean"])


@dataclass
class Chaos:
    """One scenario's chance, and its rows of the table.

    ``full``: the whole round of ``tox -e chaos``, else the short one of plain ``tox``.
    """

    full: bool
    seed: int
    random: random.Random
    rows: list[tuple[str, object]] = field(repr=False)

    def report(self, scenario: str, broker: str, **figures: object) -> None:
        """Add a row to the table; ``faults``, ``repeated`` and ``seconds`` are what the scenario counted."""
        self.rows.append(("chaos", {"scenario": scenario, "broker": broker, "seed": self.seed, **figures}))

    def settled(self, scenario: str, broker: str, pipe: Pipe, *, faults: int, seconds: float) -> None:
        """Check the ledger of a pipe whose processes have ended, and add its row."""
        balance = pipe.ledger.balance()
        shown = {
            name: getattr(balance, name) for name in ("messages", "lost", "twice", "disordered", "repeated")
        }
        self.report(scenario, broker, **shown, faults=faults, seconds=round(seconds, 1))
        assert not balance.broken, f"seed {self.seed}: {balance}\n{pipe.fleet.log[-3000:]}"


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> Chaos:
    """Chance for one scenario: the same seed gives the same faults."""
    seed = request.config.getoption("--seed")
    if not isinstance(seed, int):
        seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(f"{seed} {request.node.name}")
    return Chaos(bool(request.config.getoption("--full")), seed, chance, request.node.user_properties)


@dataclass(frozen=True)
class Pipe:
    """A pipe of three tasks: its ledger, which looks past every proxy, and the fleet that runs it.

    ``arguments`` are those of the fleet's clients. On SQS they lead through ``proxy``, whose faults are set with
    ``weather``: what is given there stands before the replay of receives and the witness.
    """

    domain: str
    arguments: dict[str, Any]
    ledger: Ledger
    fleet: Fleet
    replays: Replays
    proxy: Proxy | None = None

    def weather(self, behaviour: Behaviour | None) -> None:
        """Give every request a behaviour, or let all pass again."""
        self.through(self.proxy, behaviour)

    def through(self, proxy: Proxy | None, behaviour: Behaviour | None = None) -> None:
        """The same for a further proxy, for the requests of some of the processes."""
        assert proxy is not None, "only SQS has a network"
        behind = [
            self.replays,
            *([self.ledger.witness] if isinstance(self.ledger.witness, SqsWitness) else []),
        ]
        proxy.always("", chained(*([behaviour] if behaviour else []), *behind))


MakePipe = Callable[..., Pipe]


@pytest.fixture
def make_pipe(
    request: pytest.FixtureRequest,
    domain: str,
    tmp_path: Path,
    broker_arguments: Callable[[str], dict[str, Any]],
) -> Iterator[MakePipe]:
    """``make_pipe("sqs", lease=5, workers=4)`` makes a pipe; the keywords are settings of its fleet's worker.

    ``server`` is another server's URL than that of the emulator which tests share, ``valkey`` another server than
    the one that they share. Without ``witnessed`` nobody
    keeps what the queues saw. A task has so many ``levels``.
    """
    with contextlib.ExitStack() as stack:

        def make(
            name: str,
            *,
            server: str | None = None,
            valkey: Valkey | None = None,
            witnessed: bool = True,
            levels: int = 1,
            options: dict[str, Any] | None = None,
            **settings: Any,
        ) -> Pipe:
            direct = (
                broker_arguments(name)
                if server is None
                else {**broker_arguments("sqs"), "endpoint_url": server}
            )
            if name == "redis":
                valkey = valkey or request.getfixturevalue("valkey")
                direct = {"broker": f"{valkey.url}?prefix={domain}"}
            proxy = None
            arguments = direct
            if name == "sqs":
                proxy = stack.enter_context(contextlib.closing(Proxy(direct["endpoint_url"])))
                arguments = {**direct, "endpoint_url": proxy.url}
            witness: Witness | None = None
            if witnessed:
                witness = SqsWitness() if proxy else SqliteWitness(tmp_path / "pipe.db")
                if valkey is not None:
                    witness = RedisWitness(valkey, domain)
            journal = tmp_path / "journal"
            ledger = stack.enter_context(contextlib.closing(Ledger(domain, direct, journal, witness, levels)))
            settings = {
                "arguments": arguments,
                "journal": str(journal),
                "options": options or {},
                "levels": levels,
                **settings,
            }
            workers = stack.enter_context(fleet(tmp_path, domain=domain, **settings))
            pipe = Pipe(domain, arguments, ledger, workers, Replays(), proxy)
            if proxy:
                pipe.weather(None)
            return pipe

        yield make
