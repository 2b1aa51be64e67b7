"""The log: each line that the documentation names, nothing else above DEBUG, no payload and no secret."""

from __future__ import annotations

import itertools
import logging
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from sqspipes.engine import dues
from tests.conftest import AWS
from tests.integration.support import Seen, in_flight, passed, piped, run_until, until
from tests.servers import Proxy, error, forwarded

MEMORY = {"broker": "memory://"}
PAYLOAD = "payload-7f3a"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of sqspipes, with all it says."""
    caplog.set_level(logging.DEBUG, logger="sqspipes")
    return caplog


def lines(log: pytest.LogCaptureFixture, level: int) -> list[str]:
    """Return the log's lines of one level."""
    return [record.getMessage() for record in log.records if record.levelno == level]


def same(value: Any) -> Any:
    """Hand a value on."""
    return value


def broken(value: Any) -> None:
    """Fail, always."""
    raise ValueError("no luck")


# INFO


def test_run_says_how_it_starts_and_how_it_ends_and_nothing_else(
    domain: str, pipe_broker: dict[str, Any], log: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    with piped(domain, pipe_broker, same, seen.take) as client:
        client.put_many(range(20))
        with client.start():
            seen.wait(20)
        client.status()
        list(client.dead_letters())
    above = [record for record in log.records if record.levelno > logging.DEBUG]
    assert [record.levelno for record in above] == [logging.INFO] * 2
    assert all(record.name.split(".")[0] == "sqspipes" for record in log.records)


def test_start_line_names_domain_broker_tasks_workers_and_interval(
    domain: str, log: pytest.LogCaptureFixture
) -> None:
    source = {"method": lambda: None, "name": "tick", "interval": 0.25, "workers": 3}
    with piped(domain, MEMORY, source, {"method": same, "workers": 16}) as client, client.start():
        pass
    (start,) = [line for line in lines(log, logging.INFO) if "tick" in line]
    for part in (domain, "memory://", "tick", "3 workers", "0.25", "same", "16 workers"):
        assert part in start


def test_start_line_has_the_absolute_path_of_the_file(
    domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with piped(domain, {"broker": "sqlite:///pipe.db"}, same) as client:
        client.run(drain=True)
    assert str(tmp_path / "pipe.db") in lines(log, logging.INFO)[0]


def test_start_line_names_the_tasks_of_this_run_alone(domain: str, log: pytest.LogCaptureFixture) -> None:
    with piped(domain, MEMORY, same, {"method": same, "name": "other"}) as client:
        client.run("same", workers=7, drain=True)
    assert "same (7 workers" in lines(log, logging.INFO)[0]
    assert "other" not in lines(log, logging.INFO)[0]


def test_summary_is_logged_when_a_run_ends(domain: str, log: pytest.LogCaptureFixture) -> None:
    with piped(domain, MEMORY, {"method": broken, "retries": 1}, {"method": same, "name": "good"}) as client:
        client.put(1)
        client.put(2, task="good")
        client.run(drain=True)
    last = lines(log, logging.INFO)[-1]
    for part in ("drained", "1 call done", "2 failed", "1 dead"):
        assert part in last


def test_run_without_a_message_says_once_what_it_waits_for(
    domain: str, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dues.QUIET_SECONDS == 10.0
    monkeypatch.setattr(dues, "QUIET_SECONDS", 0.2)
    with piped(domain, MEMORY, same) as client, client.start():
        until(lambda: any("waiting for put()" in line for line in lines(log, logging.INFO)))
        client.put(1)
        client.put(2)
        until(lambda: client.status().levels[0].waiting == 0)
    assert sum("waiting for put()" in line for line in lines(log, logging.INFO)) == 1


def test_run_that_has_messages_does_not_say_that_it_waits(
    domain: str, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dues, "QUIET_SECONDS", 0.3)
    seen = Seen()
    with piped(domain, MEMORY, seen.take) as client:
        client.put(1)
        with client.start() as run:
            seen.wait(1)
            with pytest.raises(TimeoutError):
                run.wait(0.6)
    assert not any("waiting for put()" in line for line in lines(log, logging.INFO))


# WARNING


def test_failed_attempt_is_one_line_with_its_traceback_at_debug(
    domain: str, pipe_broker: dict[str, Any], log: pytest.LogCaptureFixture
) -> None:
    tries = itertools.count()

    def count(value: int) -> None:
        if next(tries) == 0:
            raise ValueError("two\nlines")

    with piped(domain, pipe_broker, count, backoff=0.31) as client:
        client.put(1, id="6f1c")
        run_until(client, done=1)
    assert lines(log, logging.WARNING) == [
        "count 6f1c failed, attempt 1 of 9, again in 0.3 s: ValueError: two lines"
    ]
    assert [record for record in log.records if record.exc_info and record.levelno > logging.DEBUG] == []
    (traced,) = [record for record in log.records if record.exc_info]
    assert "count 6f1c" in traced.getMessage()


def test_attempts_without_a_limit_are_logged_too(domain: str, log: pytest.LogCaptureFixture) -> None:
    tries = itertools.count()

    def count(value: int) -> None:
        if next(tries) == 0:
            raise ValueError

    with piped(domain, MEMORY, count, retries=None) as client:
        client.put(1, id="6f1c")
        client.run(drain=True)
    (line,) = lines(log, logging.WARNING)
    assert re.fullmatch(r"count 6f1c failed, attempt 1 of .+, again in 0\.\d s: ValueError", line)


def test_lost_lease_is_logged(domain: str, log: pytest.LogCaptureFixture) -> None:
    inside, gate = threading.Event(), threading.Event()

    def slow(value: int) -> None:
        inside.set()
        passed(gate)

    with piped(domain, MEMORY, slow) as client:
        client.put(1, id="6f1c")
        with client.start():
            passed(inside)
            client.purge()
            until(lambda: any("lease was lost" in line for line in lines(log, logging.WARNING)))
            gate.set()
    assert "slow 6f1c: its lease was lost" in lines(log, logging.WARNING)


def test_outage_is_logged_when_it_begins_and_when_it_ends(
    domain: str, proxy: Proxy, log: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    with piped(domain, {"broker": "sqs://", **AWS}, seen.take, endpoint_url=proxy.url) as client:
        client.create_queues()
        proxy.always("ReceiveMessage", error(503, "ServiceUnavailable"))
        with client.start():
            until(lambda: len(proxy.requests("ReceiveMessage")) > 5)
            assert len(lines(log, logging.WARNING)) == 1
            proxy.always("ReceiveMessage", forwarded)
            client.put(1)
            seen.wait(1)
            until(lambda: len(lines(log, logging.WARNING)) == 2)
    begin, end = lines(log, logging.WARNING)
    assert "does not answer" in begin
    assert "ServiceUnavailable" in begin
    assert "answers again" in end


def test_single_failure_that_the_next_try_mends_is_not_logged(
    domain: str, proxy: Proxy, log: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    with piped(domain, {"broker": "sqs://", **AWS}, seen.take, endpoint_url=proxy.url) as client:
        client.put(1)
        proxy.plan("ReceiveMessage", error(503, "ServiceUnavailable"))
        proxy.plan("DeleteMessageBatch", error(503, "ServiceUnavailable"))
        with client.start():
            seen.wait(1)
            until(lambda: in_flight(client, "take") == 0)
    assert lines(log, logging.WARNING) == []


# ERROR


def test_dead_letter_is_logged_with_its_traceback_and_the_call_that_shows_it(
    domain: str, pipe_broker: dict[str, Any], log: pytest.LogCaptureFixture
) -> None:
    with piped(domain, pipe_broker, broken, retries=0) as client:
        client.put(1, id="6f1c")
        run_until(client, dead=1)
    (record,) = [record for record in log.records if record.levelno == logging.ERROR]
    for part in ("broken 6f1c", "ValueError: no luck", "dead_letters('broken')"):
        assert part in record.getMessage()
    assert record.exc_info
    assert record.exc_info[1].args == ("no luck",)
    assert lines(log, logging.WARNING) == []


# What must not be there


def test_no_payload_is_logged_above_debug(
    domain: str, pipe_broker: dict[str, Any], log: pytest.LogCaptureFixture
) -> None:
    tries = itertools.count()

    def shaky(value: str) -> Any:
        if next(tries) == 0:
            raise ValueError("no luck")
        return {"value": value, "bad": object()} if "bad" in value else value

    with piped(domain, pipe_broker, shaky, broken, retries=1) as client:
        client.put_many([PAYLOAD, PAYLOAD + "bad"])
        run_until(client, dead=2)
        list(client.dead_letters())
        client.status()
        repr(client)
    told = [logging.Formatter().format(record) for record in log.records if record.levelno > logging.DEBUG]
    assert len(told) > 4
    assert not any(PAYLOAD in line for line in told)


def test_no_secret_is_logged_at_any_level(domain: str, proxy: Proxy, log: pytest.LogCaptureFixture) -> None:
    account = {"aws_key": "AKIDEXAMPLE", "aws_secret": "very-secret", "aws_region": "us-west-2"}
    seen = Seen()
    with piped(domain, {"broker": "sqs://", **account}, seen.take, endpoint_url=proxy.url) as client:
        proxy.plan("ReceiveMessage", error(503, "ServiceUnavailable"), error(503, "ServiceUnavailable"))
        client.put(1)
        with client.start():
            seen.wait(1)
    told = [
        logging.Formatter().format(record) for record in log.records if record.name.startswith("sqspipes")
    ]
    assert told != []
    assert not any("very-secret" in line for line in told)


def test_putting_logs_nothing(
    domain: str, pipe_broker: dict[str, Any], log: pytest.LogCaptureFixture
) -> None:
    with piped(domain, pipe_broker, same) as client:
        client.put(1)
        client.put_many(range(20))
        client.delete()
    assert [record for record in log.records if record.levelno > logging.DEBUG] == []
