"""Credentials, region and endpoint are found as boto3 finds them, and the secret shows nowhere."""

from __future__ import annotations

import logging
from typing import Any

import boto3
import pytest

from sqspipes.brokers import open_broker
from sqspipes.brokers.sqs.account import Access, Account
from sqspipes.errors import (
    BrokerError,
    CredentialsError,
    OptionError,
)
from sqspipes.testing.broker_contract.steps import bodies, made, put, take
from tests.conftest import MakeBroker
from tests.servers import (
    Proxy,
    Server,
    error,
)

SECRET = "do-not-show-this-secret"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which boto3 finds nothing."""
    for name in ("KEY_ID", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere/config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere/credentials")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def test_nothing_is_connected_before_the_first_call(make_broker: MakeBroker, proxy: Proxy) -> None:
    broker = make_broker("sqs", endpoint_url=proxy.url)
    assert broker.limits.entries == 10
    broker.interrupt()
    assert not proxy.requests()


def test_missing_credentials_are_explained(bare: pytest.MonkeyPatch) -> None:
    broker = open_broker("sqs://", aws_region="us-west-2", endpoint_url="http://127.0.0.1:9")
    with pytest.raises(CredentialsError) as caught:
        broker.names("x")
    for way in ("aws_key=", "AWS_PROFILE", "session=", "SQSPIPES_BROKER=sqlite:///pipe.db"):
        assert way in str(caught.value)


def test_missing_profile_is_explained(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(CredentialsError, match=r"nobody.*session="):
        open_broker("sqs://", aws_region="us-west-2").names("x")


def test_missing_region_is_explained(bare: pytest.MonkeyPatch) -> None:
    broker = open_broker("sqs://", aws_key="x", aws_secret=SECRET, endpoint_url="http://127.0.0.1:9")
    with pytest.raises(CredentialsError, match=r"no AWS region.*aws_region=.*AWS_REGION") as caught:
        broker.names("x")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_environment_may_give_everything(
    bare: pytest.MonkeyPatch, ministack: Server, domain: str, name: str
) -> None:
    bare.setenv(name, "eu-central-1")
    bare.setenv("AWS_ACCESS_KEY_ID", "x")
    bare.setenv("AWS_SECRET_ACCESS_KEY", "x")
    bare.setenv("AWS_ENDPOINT_URL_SQS", ministack.url)
    broker = open_broker("sqs://")
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    assert bodies(take(broker, queue)) == ["a"]
    broker.close()


def test_session_may_give_everything_but_the_endpoint(
    bare: pytest.MonkeyPatch, ministack: Server, domain: str
) -> None:
    session = boto3.Session(aws_access_key_id="x", aws_secret_access_key="x", region_name="eu-west-1")
    broker = open_broker("sqs://", session=session, endpoint_url=ministack.url)
    (queue,) = made(broker, domain)
    assert broker.names(domain) == [queue]
    broker.close()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"aws_key": "x"}, "aws_key is given without aws_secret"),
        ({"aws_secret": SECRET}, "aws_secret is given without aws_key"),
        ({"aws_key": "x", "aws_secret": SECRET, "session": object()}, "aws_key and session"),
    ],
)
def test_arguments_that_contradict_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text) as caught:
        open_broker("sqs://", **arguments)
    assert SECRET not in str(caught.value)


def test_endpoint_that_is_no_url_is_refused() -> None:
    broker = open_broker(
        "sqs://", aws_key="x", aws_secret="x", aws_region="us-west-2", endpoint_url="nowhere"
    )
    with pytest.raises(OptionError, match="endpoint_url is 'nowhere'"):
        broker.names("x")


@pytest.mark.parametrize("code", ["AccessDenied", "SignatureDoesNotMatch", "ServiceUnavailable"])
def test_secret_shows_nowhere(
    proxy: Proxy, domain: str, caplog: pytest.LogCaptureFixture, code: str, make_broker: MakeBroker
) -> None:
    caplog.set_level(logging.DEBUG, "sqspipes")
    broker = make_broker("sqs", endpoint_url=proxy.url, aws_secret=SECRET)
    (queue,) = made(broker, domain)
    proxy.always("SendMessageBatch", error(403, code, f"no\nThe Canonical String was x-token:{SECRET}"))
    with pytest.raises(BrokerError) as caught:
        put(broker, queue, "a")
    shown = [repr(broker), str(vars(broker)), str(caught.value), repr(caught.value), caplog.text]
    shown += [repr(value) for value in vars(broker).values()]
    assert SECRET not in "".join(shown)
    if code == "SignatureDoesNotMatch":
        assert caught.value.__cause__ is None


def test_url_has_no_settings() -> None:
    with pytest.raises(OptionError, match="sqs://us-west-2"):
        open_broker("sqs://us-west-2")


def test_models_of_services_are_read_once_in_a_process() -> None:
    loaders = []
    for _ in range(2):
        access = Access(Account(key="x", secret="x", region="us-west-2"))
        loaders.append(access._session._session.get_component("data_loader"))
    assert loaders[0] is loaders[1]
