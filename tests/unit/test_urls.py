"""No secret of a URL is in an error, a log line or a repr, however the URL was written."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

import pytest

from sqspipes import TaskClient
from sqspipes.brokers import open_broker
from sqspipes.cli import main
from sqspipes.errors import BrokerUnavailableError, OptionError
from sqspipes.support.urls import shown, without_secrets

SECRET = "VERYSECRET"

#: What people write, having another library's URLs in mind, or in haste.
WRONG = [
    *("sqs://AKIAEXAMPLE:VERYSECRET@", "sqs://AKIAEXAMPLE:VERYSECRET@us-west-2", "sqs://AKIA:VERYSECRET"),
    *("sqs://AKIA:VERY/SECRET@/", "sqs://:VERYSECRET@", "sqs://VERYSECRET@", "sqs://?secret=VERYSECRET"),
    *(
        "sqs://us-west-2/VERYSECRET",
        "sqs://AKIA%3AVERYSECRET%40",
        "SQS://AKIA:VERYSECRET@",
        "sqs://#VERYSECRET",
    ),
    *("sqlite://user:VERYSECRET@/x", "sqlite:///x.db?key=VERYSECRET", "sqlite:///x.db?VERYSECRET"),
    *("sqlite:///no/user:VERYSECRET@/x", "sqlite:///user:VERYSECRET@no/x", "sqlite://VERYSECRET@h/x.db"),
    *("sqlite:///x.db#VERYSECRET", "sqlite://h/x?key=VERYSECRET", "sqlite:///?key=VERYSECRET"),
    *("memory://VERYSECRET", "memory://u:VERYSECRET@h", "memory://?key=VERYSECRET", "memory:///VERYSECRET"),
    *("sqlite://[VERYSECRET", "sqlite:///x.db?synchronous=FULL&key=VERYSECRET"),
    *("redis://u:VERYSECRET@host:port", "redis://u:VERYSECRET", "redis://0@localhost/VERYSECRET"),
    *("redis://0@localhost/VERYSECRET?prefix=a b", "redis://localhost?VERYSECRET", "redis://u:VERY?SECRET@h"),
    *(
        "redis://u:VERY?SECRET=1@h",
        "redis://0:1?VERYSECRET=1@h",
        "redis://h#VERYSECRET",
        "redis://h:VERYSECRET",
    ),
    *("redis://u:VERYSECRET@h1:1,h2:2", "redis://VERYSECRET@h:port", "redis://VERYSECRET:@h:port"),
    *(
        "rediss://u:VERY#SECRET@h:port",
        "rediss://u:VERYSECRET@h?ssl_password=VERYSECRET",
        "redis://u:VERY@SECRET@[h",
    ),
    *("redis:VERYSECRET@h", "reddis://u:VERYSECRET@h", "unix://u:VERYSECRET@/s.sock?password=VERYSECRET"),
    *("amqp://u:VERYSECRET@h", "u:VERYSECRET@h", "https://VERYSECRET@sqs.us-west-2.amazonaws.com/1/q"),
    *("redis+sentinel://:VERYSECRET@h/0", "sentinel://h/VERYSECRET?x=VERYSECRET"),
]


def told(error: BaseException) -> str:
    """Return all that a person may be shown of an error, of what was handled when it was raised too."""
    texts, found = ["".join(traceback.format_exception(error))], [error]
    while found:
        each = found.pop()
        texts += [str(each), repr(each)]
        found += [other for other in (each.__cause__, each.__context__) if other is not None]
    return "".join(texts)


@pytest.mark.parametrize("url", WRONG)
def test_secret_of_a_refused_url_is_shown_nowhere(url: str) -> None:
    with pytest.raises(OptionError) as caught:
        open_broker(url)
    lines = [line for line in told(caught.value).splitlines() if "open_broker(url)" not in line]
    assert not [line for line in lines if "SECRET" in line]
    assert "SECRET" not in shown(url)


@pytest.mark.parametrize(
    "url", ["sqs://AKIA:VERYSECRET@", "redis://u:VERYSECRET", "sqlite://u:VERYSECRET@/x"]
)
def test_command_line_shows_no_secret_of_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], url: str
) -> None:
    (tmp_path / "with_a_secret.py").write_text("import sqspipes\nclient = sqspipes.TaskClient('domain')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SQSPIPES_BROKER", url)
    assert main(["status", "with_a_secret:client"]) != 0
    output = capfd.readouterr()
    assert "broker is" in output.err
    assert "SECRET" not in (output.out + output.err).replace("with_a_secret", "")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://me:secret@localhost:1/2?prefix=x", "redis://me:***@localhost:1/2"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("reddis://localhost", "reddis://localhost"),
        ("sqlite:///var/lib/me@host/pipe.db", "sqlite:///var/lib/me@host/pipe.db"),
        ("sqlite:///C:/pipe.db", "sqlite:///C:/pipe.db"),
        ("sqs://us-west-2", "sqs://us-west-2"),
        ("http://localhost:4566/a/path", "http://localhost:4566/a/path"),
        ("pipe.db", "pipe.db"),
    ],
)
def test_what_is_no_secret_is_shown(url: str, text: str) -> None:
    assert shown(url) == text


def test_text_of_a_library_is_shown_without_passwords() -> None:
    text = 'Could not connect to "http://u:p@h:1/" or "socks5://u:a/b@h", ask me@example.org'
    assert (
        without_secrets(text)
        == 'Could not connect to "http://***@h:1/" or "socks5://***@h", ask me@example.org'
    )


@pytest.mark.parametrize(
    "url",
    ["redis://VERYSECRET@localhost", "redis://me:VERYSECRET@localhost", "redis://:VERYSECRET@localhost"],
)
def test_broker_that_can_be_opened_shows_no_secret(url: str) -> None:
    broker = open_broker(url)
    assert SECRET not in f"{broker.url} {broker!r} {vars(broker)!r} {TaskClient('domain', broker=url)!r}"
    assert SECRET in broker.full_url


ENDPOINTS = [
    *(
        "http://user:VERYSECRET@127.0.0.1:9",
        "http://VERYSECRET@127.0.0.1:9",
        "http://u:VERY/SECRET@127.0.0.1:9",
    ),
    *(
        "http://127.0.0.1:9?key=VERYSECRET",
        "http://u:VERYSECRET@[bad",
        "http://u:VERYSECRET",
        "u:VERYSECRET@h",
    ),
    *("http://u:VERYSECRET@host:port", "redis://u:VERYSECRET@h", "http://127.0.0.1:9/#VERYSECRET"),
]


@pytest.mark.parametrize("transport", ["lean", "boto3"])
@pytest.mark.parametrize("url", ENDPOINTS)
@pytest.mark.parametrize("way", ["argument", "environment", "profile"])
def test_endpoint_with_a_secret_is_refused_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, transport: str, way: str
) -> None:
    account: dict[str, Any] = {"aws_key": "x", "aws_secret": "x", "aws_region": "us-west-2"}
    if way == "argument":
        account["endpoint_url"] = url
    elif way == "environment":
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", url)
    else:
        config = tmp_path / "config"
        config.write_text(f"[default]\nendpoint_url = {url}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    broker = open_broker("sqs://", transport=transport, **account)
    assert "SECRET" not in f"{broker!r}{vars(broker)!r}"
    with pytest.raises(OptionError) as caught:
        broker.names("x")
    # In the source line that a traceback shows there is no secret either.
    assert "SECRET" not in told(caught.value)


PROXIES = [
    *(
        "socks5://u:VERYSECRET@127.0.0.1:9",
        "http://u:VERYSECRET@127.0.0.1:port",
        "http://u:VERY/SECRET@127.0.0.1:9",
    ),
    *(
        "http://u:VERYSECRET@[bad",
        "ftp://u:VERYSECRET@127.0.0.1:9",
        "http://u:VERYSECRET@127.0.0.1:9/?VERYSECRET",
    ),
]


@pytest.mark.parametrize("transport", ["lean", "boto3"])
@pytest.mark.parametrize("url", PROXIES)
def test_proxy_that_cannot_be_used_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str, transport: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", url)
    account = {"aws_key": "x", "aws_secret": "x", "aws_region": "us-west-2", "transport": transport}
    broker = open_broker("sqs://", endpoint_url="http://sqs.invalid", **account)
    with pytest.raises(OptionError, match="the proxy for http") as caught:
        broker.names("x")
    assert "SECRET" not in told(caught.value)


@pytest.mark.parametrize("url", ["http://u:VERYSECRET@127.0.0.1:9", "u:VERYSECRET@127.0.0.1:9"])
def test_proxy_that_is_away_is_an_outage_without_its_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    caplog.set_level(logging.DEBUG, "sqspipes")
    monkeypatch.setenv("HTTP_PROXY", url)
    account = {"aws_key": "x", "aws_secret": "x", "aws_region": "us-west-2"}
    broker = open_broker("sqs://", endpoint_url="http://sqs.invalid", **account)
    with pytest.raises(BrokerUnavailableError) as caught:
        broker.names("x")
    assert "SECRET" not in told(caught.value) + caplog.text
