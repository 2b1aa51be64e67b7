"""Credentials that are renewed: what fails for a while is an outage, what is denied for good is told by its name."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.credentials import DeferredRefreshableCredentials, RefreshableCredentials
from botocore.exceptions import ClientError, CredentialRetrievalError, TokenRetrievalError

from sqspipes.brokers.base import Broker
from sqspipes.errors import BrokerUnavailableError, CredentialsError
from sqspipes.testing.broker_contract.steps import PATIENCE, in_thread, made, put
from tests.conftest import TRANSPORTS, MakeBroker
from tests.servers import Proxy

Refresh = Callable[[], dict[str, Any]]


def at(seconds: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)


def keys(seconds: float = 3_600) -> dict[str, Any]:
    return {"access_key": "x", "secret_key": "x", "token": "x", "expiry_time": at(seconds).isoformat()}


class Source:
    """A session's credentials: good at first, or none yet; from ``expire`` on each request has them renewed."""

    def __init__(self, refresh: Refresh, *, had: bool) -> None:
        self.refresh = refresh
        self.credentials: Any
        if had:
            self.credentials = RefreshableCredentials("x", "x", "x", at(3_600), self._fetch, "test")
        else:
            self.credentials = DeferredRefreshableCredentials(self._fetch, "test")

    def _fetch(self) -> dict[str, Any]:
        return self.refresh()

    def session(self) -> Any:
        session = botocore.session.get_session()
        session._credentials = self.credentials  # type: ignore[attr-defined]
        return boto3.Session(botocore_session=session, region_name="us-west-2")

    def expire(self) -> None:
        self.credentials._expiry_time = at(1)


def of_token_service(code: str, status: int = 400, action: str = "AssumeRoleWithWebIdentity") -> Refresh:
    def refresh() -> dict[str, Any]:
        told = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(told, action)  # type: ignore[arg-type]

    return refresh


def raising(error: Exception) -> Refresh:
    def refresh() -> dict[str, Any]:
        raise error

    return refresh


PASSING = {
    "still expired": lambda: keys(-9),
    "no keys": dict,
    "its provider is away": of_token_service("IDPCommunicationError"),
    "its token is refused": of_token_service("InvalidIdentityToken"),
    "its token is old": of_token_service("ExpiredTokenException"),
    "throttled": of_token_service("Throttling"),
    "broken": of_token_service("InternalFailure", 500),
    "a command that fails": raising(
        CredentialRetrievalError(provider="custom-process", error_msg="ended with 1")
    ),
    "a program's own error": raising(ValueError("what a refresh of somebody's own raises")),
    "a clock": of_token_service("RequestExpired"),
}


@pytest.fixture(params=TRANSPORTS)
def opened(request: pytest.FixtureRequest, make_broker: MakeBroker, proxy: Proxy) -> Callable[..., Broker]:
    """A broker with the credentials of a source, by either transport."""

    def opened(source: Source) -> Broker:
        own = {"aws_key": None, "aws_secret": None, "session": source.session()}
        return make_broker(request.param, endpoint_url=proxy.url, **own)

    return opened


@pytest.mark.parametrize("had", [True, False])
@pytest.mark.parametrize("refresh", PASSING.values(), ids=PASSING)
def test_refresh_that_fails_is_an_outage(
    opened: Callable[..., Broker], domain: str, refresh: Refresh, had: bool
) -> None:
    source = Source(refresh, had=had)
    broker = opened(source)
    queue = "q"
    if had:
        (queue,) = made(broker, domain)
        put(broker, queue, "a")
        source.expire()
    for _ in range(2):
        with pytest.raises(BrokerUnavailableError, match="credentials"):
            put(broker, queue, "b") if had else broker.names(domain)
    source.refresh = keys
    if had:
        put(broker, queue, "b")
    else:
        assert broker.names(domain) == []


LATER = {
    "an unknown code": of_token_service("SomethingNew"),
    "a token that expired": raising(TokenRetrievalError(provider="sso", error_msg="refresh failed")),
    "a file that is gone": raising(FileNotFoundError("/var/run/token")),
}


@pytest.mark.parametrize("refresh", LATER.values(), ids=LATER)
def test_what_worked_before_may_work_again(
    opened: Callable[..., Broker], domain: str, refresh: Refresh
) -> None:
    source = Source(refresh, had=True)
    broker = opened(source)
    broker.names(domain)
    source.expire()
    with pytest.raises(BrokerUnavailableError, match="credentials"):
        broker.names(domain)
    with pytest.raises(CredentialsError, match="credentials"):
        opened(Source(refresh, had=False)).names(domain)


@pytest.mark.parametrize("had", [True, False])
@pytest.mark.parametrize(
    ("code", "status", "action", "named"),
    [
        ("AccessDenied", 403, "AssumeRoleWithWebIdentity", "no right to sts:AssumeRoleWithWebIdentity"),
        ("AccessDenied", 403, "AssumeRole", "no right to sts:AssumeRole"),
        ("ForbiddenException", 403, "GetRoleCredentials", "no right to sso:GetRoleCredentials"),
        ("InvalidClientTokenId", 403, "AssumeRole", "sts:AssumeRole was refused: InvalidClientTokenId"),
        ("ValidationError", 400, "AssumeRole", "sts:AssumeRole was refused: ValidationError"),
        ("SignatureDoesNotMatch", 403, "AssumeRole", "sts:AssumeRole was refused: SignatureDoesNotMatch"),
    ],
)
def test_what_the_token_service_denies_for_good_is_named(
    opened: Callable[..., Broker], domain: str, code: str, status: int, action: str, named: str, had: bool
) -> None:
    source = Source(of_token_service(code, status, action), had=had)
    broker = opened(source)
    if had:
        broker.names(domain)
        source.expire()
    with pytest.raises(CredentialsError, match=named) as caught:
        broker.names(domain)
    assert "sqs:" not in str(caught.value)


def test_credentials_that_nobody_gives_are_waited_for_once_by_all_threads(
    make_broker: MakeBroker, proxy: Proxy
) -> None:
    asked, over, count, looked = threading.Event(), threading.Event(), 0, threading.Semaphore(0)

    def refresh() -> dict[str, Any]:
        nonlocal count
        count += 1
        asked.set()
        over.wait(PATIENCE)
        raise ValueError("no answer")

    source = Source(refresh, had=True)
    own = {"aws_key": None, "aws_secret": None, "session": source.session()}
    broker = make_broker("sqs", endpoint_url=proxy.url, **own)
    broker.names("x")
    source.expire()
    first = in_thread(lambda: broker.names("x"))
    assert asked.wait(PATIENCE)
    needed = source.credentials.refresh_needed
    source.credentials.refresh_needed = lambda *args: [needed(*args), looked.release()][0]
    others = [in_thread(lambda: broker.names("x")) for _ in range(5)]
    for _ in others:
        assert looked.acquire(timeout=PATIENCE)
    over.set()
    for each in (first, *others):
        with pytest.raises(BrokerUnavailableError, match="no answer"):
            each.result(PATIENCE)
    assert count == 1


@pytest.mark.parametrize("part", ["access_key", "secret_key", "token"])
@pytest.mark.parametrize("bad", ["VERYSECRET\n", "VERY\rSECRET", " VERYSECRET"])
def test_key_that_no_request_can_carry_is_refused_at_once_and_not_shown(
    opened: Callable[..., Broker], proxy: Proxy, part: str, bad: str
) -> None:
    broker = opened(Source(lambda: {**keys(), part: bad}, had=False))
    with pytest.raises(CredentialsError, match="a line end") as caught:
        broker.names("x")
    assert "SECRET" not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__}"
    assert not proxy.requests()
