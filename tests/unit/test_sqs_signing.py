"""What we sign has the signature that botocore gives it."""

from __future__ import annotations

import string
import time
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sqspipes.brokers.sqs.transport.signing import Signer

REGIONS = ("us-east-1", "us-gov-west-1", "cn-north-1", "eu-isoe-west-1", "ap-southeast-7")
VISIBLE = string.ascii_letters + string.digits + "+/=-._~"
PATHS = string.ascii_letters + "09/.-_~%+:@!$&'()*,;="


@dataclass
class Case:
    """A request to sign, drawn by chance."""

    random: Random

    def __post_init__(self) -> None:
        draw, text = self.random, self.text
        self.host = text(string.ascii_lowercase, 20) + draw.choice(["", ":9324", ":65535", ".example.com"])
        self.path = "/" + text(PATHS, draw.randrange(30)).lstrip("/")
        self.headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": draw.choice(["AmazonSQS.SendMessageBatch", "AmazonSQS.ReceiveMessage"]),
        }
        for name in ("x-amz-a", "x-amz-n", "x-amz-z", "x-amzn-query-mode", "x-other"):
            if draw.random() < 0.3:
                self.headers[name] = draw.choice(["", "  "]) + text(VISIBLE, 9) + draw.choice(["", "  b"])
        self.body = text('aé\u20ac\U0001f600\n"{}\0 ', draw.choice([0, 1, 20, 3_000])).encode()
        token = draw.choice([None, "", text(VISIBLE, draw.choice([1, 900]))])
        self.keys = Credentials(text(VISIBLE, 20), text(VISIBLE, draw.choice([1, 40, 100])), token)
        self.region = draw.choice(REGIONS)
        #: From 1970 to 2100.
        self.now = draw.randrange(4_102_444_800) + draw.random()

    def text(self, letters: str, length: int) -> str:
        return "".join(self.random.choices(letters, k=length))


def botocores(url: str, headers: dict[str, str], body: bytes, keys: Credentials, region: str, at: str) -> Any:
    """Return the headers of a request as botocore signs it at some time."""
    request: Any = AWSRequest("POST", url, dict(headers), body)
    request.context["timestamp"] = at
    auth: Any = SigV4Auth(keys, "sqs", region)
    request.headers["X-Amz-Date"] = at
    auth._modify_request_before_signing(request)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    auth._inject_signature_to_request(request, auth.signature(text, request))
    return request.headers


@pytest.mark.parametrize("seed", range(10))
def test_signature_is_botocores(seed: int) -> None:
    random = Random(seed)
    for _ in range(300):
        case = Case(random)
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(case.now))
        url = f"http://{case.host}{case.path}"
        theirs = botocores(url, case.headers, case.body, case.keys, case.region, at)
        signer = Signer(case.path, {"host": case.host, **case.headers}, case.region, "sqs")
        lines = signer.signed(case.keys, case.body, case.now).split("\r\n")
        ours = dict(line.split(": ", 1) for line in lines if line)
        assert ours == {name: theirs[name] for name in ours}, case
        assert ("X-Amz-Security-Token" in ours) == bool(case.keys.token)


def a_signer() -> Signer:
    return Signer("/", {"host": "h"}, "us-east-1", "sqs")


@pytest.mark.parametrize("others", [("x", "new", 0.9), ("x", "secret", 86_400.0)])
def test_key_is_derived_anew_for_another_secret_and_another_day(others: tuple[str, str, float]) -> None:
    key, secret, now = others
    used = a_signer()
    used.signed(Credentials("x", "secret"), b"", 0.0)
    fresh = a_signer()
    assert used.signed(Credentials(key, secret), b"", now) == fresh.signed(Credentials(key, secret), b"", now)


def test_one_signature_leaves_no_trace_in_the_next() -> None:
    keys, used = Credentials("x", "secret"), a_signer()
    fresh = [a_signer().signed(keys, body, 0.0) for body in (b"one", b"two", b"one")]
    assert [used.signed(keys, body, 0.0) for body in (b"one", b"two", b"one")] == fresh


def test_what_requests_of_one_second_share_is_made_anew_for_other_keys_and_seconds() -> None:
    case = Case(Random(1))
    headers = {**case.headers, "Host": case.host}
    signer = Signer(case.path, headers, case.region, "sqs")
    keys = Credentials("key", "secret", "token")
    for change in ("nothing", "token", "access_key", "secret_key", "second", "nothing"):
        if change == "second":
            case.now += 1
        elif change != "nothing":
            setattr(keys, change, f"other {change}".replace(" ", "-"))
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(case.now))
        theirs = botocores(f"http://{case.host}{case.path}", case.headers, case.body, keys, case.region, at)
        for _ in range(2):
            ours = signer.signed(keys, case.body, case.now)
            assert f"Authorization: {theirs['Authorization']}\r\n" in ours, change
