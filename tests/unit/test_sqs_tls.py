"""Over TLS a server has to prove who it is, to the authorities that boto3 trusts."""

from __future__ import annotations

import contextlib
import functools
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest

from sqspipes.brokers.sqs.account import Account
from sqspipes.brokers.sqs.calls import Calls
from sqspipes.defaults import TRANSPORTS
from sqspipes.errors import BrokerError, BrokerUnavailableError
from sqspipes.testing.broker_contract.steps import PATIENCE, in_thread
from tests.scripted import Scripted, Step, reply

#: A server's key and certificate for ``localhost``, its authority, and another one; good until 2100.
CERTIFICATES = Path(__file__).with_name("certificates")

Begin = Callable[..., tuple[Calls, Scripted]]


@pytest.fixture(params=TRANSPORTS)
def begin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """``begin(script, bundle="authority")`` starts a server, and the calls to it over TLS."""
    with contextlib.ExitStack() as stack:
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)

        def begin(
            script: Sequence[Step], *, host: str = "localhost", session: Any = None, **bundle: str
        ) -> tuple[Calls, Scripted]:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATES / "server.pem")
            server = Scripted(script, tls=context)
            stack.callback(server.close)
            for name, authority in bundle.items():
                monkeypatch.setenv(name, str(CERTIFICATES / f"{authority}.pem"))
            key = None if session else "x"
            url = f"https://{host}:{server.port}"
            calls = Calls(Account(key, key, "us-west-2", url, session, request.param))
            stack.callback(calls.close)
            return calls, server

        yield begin


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_bundle_of_the_environment_is_trusted(begin: Begin, name: str) -> None:
    calls, server = begin([reply(b'{"Messages": []}'), reply()], **{name: "authority"})
    assert calls.call("ReceiveMessage", {})["Messages"] == []
    calls.call("ReceiveMessage", {})
    assert server.connections == 1


def test_bundle_of_the_profile_is_trusted(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(f"[default]\nca_bundle = {CERTIFICATES / 'authority.pem'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    session = boto3.Session(aws_access_key_id="x", aws_secret_access_key="x")
    calls, server = begin([reply()], session=session)
    calls.call("ReceiveMessage", {})
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("host", "bundle"),
    [
        ("localhost", {"AWS_CA_BUNDLE": "other"}),
        ("localhost", {}),
        ("127.0.0.1", {"AWS_CA_BUNDLE": "authority"}),
    ],
)
def test_server_that_is_another_one_gets_no_request(begin: Begin, host: str, bundle: dict[str, str]) -> None:
    calls, server = begin([reply()], host=host, **bundle)
    with pytest.raises(BrokerError) as caught:
        calls.call("ReceiveMessage", {})
    assert type(caught.value.__cause__).__name__ == "SSLError"
    assert not server.requests


def test_bundle_that_is_not_there_is_an_error(begin: Begin) -> None:
    calls, server = begin([reply()], AWS_CA_BUNDLE="nothing")
    with pytest.raises(BrokerError):
        calls.call("ReceiveMessage", {})
    assert not server.requests


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_session_that_verifies_nothing_is_left_to_boto3(begin: Begin) -> None:
    session: Any = boto3.Session(aws_access_key_id="x", aws_secret_access_key="x")
    session.client = functools.partial(session.client, verify=False)
    calls, server = begin([reply()], session=session)
    calls.call("ReceiveMessage", {})
    assert len(server.requests) == 1


def test_interrupt_ends_a_poll_over_tls(begin: Begin) -> None:
    arrived, over = threading.Event(), threading.Event()

    def hang(_: Any) -> None:
        arrived.set()
        over.wait(PATIENCE)

    calls, _ = begin([hang], AWS_CA_BUNDLE="authority")
    poll = in_thread(lambda: calls.poll({}, queue="q"))
    assert arrived.wait(PATIENCE)
    calls.interrupt()
    with pytest.raises(BrokerUnavailableError, match="interrupted"):
        poll.result(5)
    over.set()
