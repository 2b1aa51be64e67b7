"""A machine whose clock is wrong signs with the server's time, in every call, or is told how wrong its clock is."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from sqspipes import TaskClient
from sqspipes.errors import BrokerUnavailableError
from sqspipes.testing.broker_contract.steps import bodies, made, put, take
from tests.conftest import TRANSPORTS, BrokerArguments, MakeBroker
from tests.servers import Behaviour, Forward, Proxy, Reply, Request, error

SECRET = "x"


def signature(request: Request) -> str:
    """Return the signature that a request of the secret's owner has.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    headers = {name.lower(): value for name, value in request.headers.items()}
    scope, names = re.findall(r"Credential=[^/]+/([^,]+), SignedHeaders=([^,]+),", headers["authorization"])[
        0
    ]
    lines = "".join(f"{name}:{headers[name]}\n" for name in names.split(";"))
    canonical = f"POST\n{request.path}\n\n{lines}\n{names}\n{hashlib.sha256(request.body).hexdigest()}"
    text = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def aws(ahead: float, *, tells_date: bool = True) -> Behaviour:
    """Look at date and signature of each request, as AWS does by a clock that is ahead of this machine's."""

    def behave(request: Request, forward: Forward) -> Reply | None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        now = time.time() + ahead
        off = time.mktime(time.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ")) - time.timezone - now
        if abs(off) > 300:
            said = f"Signature expired: x is now earlier than y ({_stamp(now)} - 5 min.)"
            refused = error(403, "InvalidSignatureException", said)(request, forward)
            assert refused is not None
            date = formatdate(now, usegmt=True) if tells_date else "-"
            return replace(refused, headers={**refused.headers, "Date": date})
        assert headers["authorization"].endswith(f"Signature={signature(request)}"), request.action
        return forward(request)

    return behave


def _stamp(at: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("minutes", [20, -20, 24 * 60])
def test_pipe_runs_on_a_machine_whose_clock_is_wrong(
    broker_arguments: BrokerArguments,
    proxy: Proxy,
    domain: str,
    caplog: pytest.LogCaptureFixture,
    transport: str,
    minutes: int,
) -> None:
    caplog.set_level(logging.INFO, "sqspipes")
    proxy.always("", aws(minutes * 60))
    got: list[Any] = []
    arguments = {**broker_arguments(transport), "endpoint_url": proxy.url}
    with TaskClient(domain, **arguments).register_tasks([{"method": got.append, "name": "last"}]) as client:
        client.put_many(range(3))
        assert client.run(drain=0.1).done == 3
        client.delete()
    assert sorted(got) == [0, 1, 2]
    clock = f"clock is {abs(minutes)} minutes {'behind' if minutes > 0 else 'ahead of'} AWS"
    assert [clock in each.getMessage() for each in caplog.records if each.levelno > logging.INFO] == [True]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_clock_is_read_in_the_refusal_where_a_proxy_takes_the_date_away(
    make_broker: MakeBroker, proxy: Proxy, domain: str, transport: str
) -> None:
    proxy.always("", aws(-1_200, tells_date=False))
    broker = make_broker(transport, endpoint_url=proxy.url)
    (queue,) = made(broker, domain)
    put(broker, queue, "a")
    assert bodies(take(broker, queue)) == ["a"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "SignatureDoesNotMatch", "RequestExpired"])
def test_clock_that_cannot_be_corrected_is_named(
    make_broker: MakeBroker, proxy: Proxy, transport: str, code: str
) -> None:
    def refuse(request: Request, forward: Forward) -> Reply | None:
        date = {"Date": formatdate(time.time() - 1_200, usegmt=True)}
        refused = error(403, code, "Signature not yet current: never right")(request, forward)
        assert refused is not None
        return replace(refused, headers={**refused.headers, **date})

    proxy.always("", refuse)
    with pytest.raises(BrokerUnavailableError, match="this machine's clock is 20 minutes ahead of AWS"):
        make_broker(transport, endpoint_url=proxy.url).names("x")
    assert len(proxy.requests()) == 2
