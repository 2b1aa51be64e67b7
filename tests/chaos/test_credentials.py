"""Credentials and rights: what expires is renewed without a hiccup, what is wrong is told at once, with a remedy."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import ClientError
from botocore.session import get_session

from sqspipes import CredentialsError, QueueMissingError, RunError, TaskClient
from sqspipes.brokers.base import Broker
from tests.acceptance.support import eventually
from tests.conftest import AWS, MakeBroker
from tests.servers import Behaviour, Forward, Proxy, Reply, Request, Server, error

#: Seconds within which a user is told.
SOON = 15.0


class Keys:
    """An account whose keys are replaced; the server refuses the ones before, as AWS does."""

    def __init__(self) -> None:
        self.number = self.given = 1
        self.refused = 0
        self.away: str | None = None  #: what the token service answers, while it gives no keys
        self.failed = 0

    def session(self) -> Any:
        """Return a boto3 session that fetches the keys of now when it is told that its own are old."""
        session = get_session()
        found = RefreshableCredentials.create_from_metadata(self.fetch(), self.fetch, "test")
        session._credentials = found  # type: ignore[attr-defined]
        return boto3.Session(botocore_session=session, region_name="us-west-2")

    def fetch(self) -> dict[str, str]:
        """Return the keys of now. So near their end, they are fetched anew for each request."""
        if self.away is not None:
            self.failed += 1
            said = {"Error": {"Code": self.away, "Message": "provoked by the test"}}
            raise ClientError(
                {**said, "ResponseMetadata": {"HTTPStatusCode": 400}}, "AssumeRoleWithWebIdentity"
            )  # type: ignore[typeddict-item]
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5)
        key, self.given = (
            f"KEY{self.given}",
            self.number,
        )  # the first request after a change still has the old one
        return {"access_key": key, "secret_key": "x", "token": "x", "expiry_time": end.isoformat()}

    def __call__(self, request: Request, forward: Forward) -> Reply | None:
        if f"Credential=KEY{self.number}/" in request.headers.get("Authorization", ""):
            return forward(request)
        self.refused += 1
        return error(403, "ExpiredToken", "The security token included in the request is expired")(
            request, forward
        )


class Through:
    """The last task: remembers what came."""

    def __init__(self) -> None:
        self.values: list[int] = []

    def __call__(self, value: int) -> None:
        self.values.append(value)


def first(value: int) -> int:
    """Pass on."""
    return value


def piped(domain: str, through: Through, **arguments: Any) -> TaskClient:
    """Return a client of two tasks. What a cut poll took, the emulator hides for a lease: a short one."""
    tasks = [{"method": first, "workers": 2}, {"method": through, "name": "last", "workers": 2}]
    return TaskClient(
        domain, **{"broker": "sqs://", "lease": 5.0, "stop_timeout": 5.0, **arguments}
    ).register_tasks(tasks)


@pytest.mark.timeout(240)
def test_keys_that_expire_in_the_middle_are_renewed_without_a_hiccup(
    chaos: Any, domain: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sqspipes")
    keys, through, begun = Keys(), Through(), time.monotonic()
    proxy.always("", keys)
    rounds = 10 if chaos.full else 3
    with piped(domain, through, session=keys.session(), endpoint_url=proxy.url) as client:
        with client.start() as run:
            for number in range(1, rounds + 1):
                client.put_many(range(number * 50 - 50, number * 50))
                keys.number += 1
                eventually(
                    lambda count=number * 50: run.over or len(through.values) >= count,
                    60,
                    "all are through",  # type: ignore[misc]
                )
        assert run.summary.dead == 0
    assert sorted(through.values) == list(range(rounds * 50))
    assert keys.refused >= rounds
    assert len(caplog.records) <= rounds, caplog.text
    chaos.report(
        scenario="9 keys expire", broker="sqs", messages=rounds * 50, faults=keys.refused,
        lost=rounds * 50 - len(set(through.values)), repeated=len(through.values) - rounds * 50,
        seconds=round(time.monotonic() - begun, 1),
    )  # fmt: skip


@pytest.mark.timeout(240)
@pytest.mark.parametrize("code", ["IDPCommunicationError", "InvalidIdentityToken"])
def test_token_service_that_is_away_is_waited_for(
    chaos: Any, domain: str, proxy: Proxy, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    caplog.set_level(logging.WARNING, "sqspipes")
    keys, through, begun = Keys(), Through(), time.monotonic()
    proxy.always("", keys)
    with (
        piped(domain, through, session=keys.session(), endpoint_url=proxy.url) as client,
        client.start() as run,
    ):
        client.put_many(range(100))
        eventually(lambda: len(through.values) >= 20, 60, "some are through")
        keys.away, keys.failed = code, 0
        eventually(lambda: run.over or keys.failed >= (40 if chaos.full else 10), 60, "keys were asked for")
        keys.away = None
        eventually(lambda: run.over or len(through.values) >= 100, 60, "all are through")
        eventually(lambda: run.over or run.outage is None, 60, "every part has had an answer")
        assert not run.over
    assert run.summary.dead == 0
    assert sorted(through.values) == list(range(100))
    told = [record for record in caplog.records if record.name.startswith("sqspipes")]
    # What was signed before may be answered in the middle, and end the outage for a moment.
    assert [record.getMessage().split()[1] for record in told][-2:] == ["does", "answers"], caplog.text
    assert len(told) <= 4, caplog.text
    chaos.report(
        scenario=f"9 token service away: {code}", broker="sqs", messages=100, faults=keys.failed,
        lost=100 - len(set(through.values)), repeated=len(through.values) - 100,
        seconds=round(time.monotonic() - begun, 1),
    )  # fmt: skip


def told(call: Callable[[], Any], kind: type[BaseException]) -> str:
    """Return what a user reads when a call fails, as it must, soon."""
    begun = time.monotonic()
    with pytest.raises(kind) as caught:
        call()
    assert time.monotonic() - begun < SOON
    return str(caught.value)


#: AWS's answers to keys that are none of its own.
WRONG = ["InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "ExpiredToken"]


@pytest.mark.parametrize("code", WRONG)
def test_wrong_keys_are_told_at_once(chaos: Any, domain: str, proxy: Proxy, code: str) -> None:
    proxy.always("", error(403, code, "The security token included in the request is invalid."))
    with piped(domain, Through(), endpoint_url=proxy.url, **AWS) as client:
        for call in (lambda: client.put(1), client.run, client.status):
            said = told(call, CredentialsError)
            assert code in said
            assert "aws_key=" in said


def test_no_region_is_told_at_once(chaos: Any, domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere/config")
    with piped(domain, Through(), aws_key="x", aws_secret="x") as client:
        said = told(client.run, CredentialsError)
    assert "no AWS region" in said
    assert "aws_region=" in said


def refused(action: str) -> Behaviour:
    """The answer of AWS to somebody who has no right to do this."""
    what = f"User: arn:aws:iam::1:user/x is not authorized to perform: sqs:{action.removesuffix('Batch')}"
    return error(403, "AccessDenied", what)


def test_no_right_to_make_queues_is_told_at_once(chaos: Any, domain: str, proxy: Proxy) -> None:
    proxy.always("CreateQueue", refused("CreateQueue"))
    with piped(domain, Through(), endpoint_url=proxy.url, **AWS) as client:
        said = told(client.run, CredentialsError)
    assert "sqs:CreateQueue" in said
    assert "create=False" in said
    assert f"{domain}--" in said


HOT = ["SendMessageBatch", "ReceiveMessage", "DeleteMessageBatch"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("action", HOT)
def test_right_that_is_taken_away_ends_the_run_and_loses_nothing(
    chaos: Any, domain: str, proxy: Proxy, ministack: Server, action: str
) -> None:
    through, begun = Through(), time.monotonic()
    with piped(domain, through, endpoint_url=proxy.url, **AWS) as client:
        run = client.start()
        client.put_many(range(20))
        eventually(lambda: len(through.values) >= 20, 30, "the first ones are through")
        proxy.always(action, refused(action))
        with piped(domain, Through(), endpoint_url=ministack.url, **AWS) as other:
            other.put_many(range(20, 60))
        said = told(lambda: run.wait(30), RunError)
        proxy.clear()
        again = client.start()
        eventually(lambda: again.over or set(through.values) == set(range(60)), 60, "all are through")
        again.stop()
        again.wait(30)
    assert f"sqs:{action.removesuffix('Batch')}" in said
    assert f"{domain}--" in said
    assert "policy" in said
    chaos.report(
        scenario=f"9 no right to {action}", broker="sqs", messages=60, faults=1,
        lost=len(set(range(60)) - set(through.values)), repeated=len(through.values) - 60,
        seconds=round(time.monotonic() - begun, 1),
    )  # fmt: skip


@pytest.mark.parametrize("broker_name", ["memory", "sqlite", "sqs"])
def test_queue_deleted_under_the_running_pipe_ends_the_run_with_its_name(
    chaos: Any, domain: str, make_broker: MakeBroker, broker_name: str
) -> None:
    broker: Broker = make_broker(broker_name)
    deleting = broker if broker_name == "memory" else make_broker(broker_name)
    with piped(domain, Through(), broker=deleting) as maker:
        maker.create_queues()
    through = Through()
    client = piped(domain, through, broker=broker)
    run = client.start()
    client.put_many(range(10))
    eventually(lambda: len(through.values) >= 10, 30, "the first ones are through")
    deleting.delete(f"{domain}--last.fifo")
    client.put(10)
    with pytest.raises(RunError) as caught:
        run.wait(30)
    assert isinstance(caught.value.__cause__, QueueMissingError)
    assert f"queue {domain}--last.fifo does not exist" in str(caught.value)
    assert "create_queues()" in str(caught.value)
    client.create_queues()
    with client.start() as run:
        eventually(lambda: len(through.values) >= 11, 60, "the last one is through")
