"""TaskClient's options: what is refused and how, where the broker comes from, what creates queues."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

import sqspipes
import sqspipes.client
import sqspipes.task_client
from sqspipes import CredentialsError, OptionError, SqspipesError, TaskClient
from tests.conftest import AWS, MakeBroker
from tests.integration.support import Seen, piped, run_until
from tests.servers import Server, free_port

SQS = {"broker": "sqs://", **AWS}


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment in which boto3 finds nothing."""
    names = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "DEFAULT_REGION", "PROFILE")
    for name in (*(f"AWS_{name}" for name in names), "AWS_ENDPOINT_URL_SQS", "SQSPIPES_BROKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def task(value: Any) -> None:
    """Take a value."""


# Checks


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("lease", 4.9, "5 to 240"),
        ("lease", 241, "5 to 240"),
        ("lease", "60", "5 to 240"),
        ("retries", -1, "0"),
        ("retries", 1.5, "0"),
        ("backoff", -0.1, "0"),
        ("backoff", float("nan"), "0"),
        ("non_retryable", ("ValueError",), "exception types"),
        ("on_error", "ignore", "'retry' or 'raise'"),
        ("strict", 1, "True or False"),
        ("linger", 10.5, "0 to 10"),
        ("stop_timeout", -1, "0"),
        ("ignore_none", "no", "True or False"),
        ("create", None, "True or False"),
        ("high_throughput", "yes", "True or False"),
        ("queue_attributes", {"DelaySeconds": 1}, "dict of texts"),
        ("tags", ["a"], "dict of texts"),
        ("json_default", "str", "callable"),
        ("broker", 7, "URL or a Broker"),
    ],
)
def test_option_error_names_option_value_and_what_is_allowed(option: str, value: Any, allowed: str) -> None:
    with pytest.raises(OptionError) as caught:
        TaskClient("app", **{"broker": "memory://", option: value})
    for part in (option, repr(value), allowed):
        assert part in str(caught.value)


@pytest.mark.parametrize("domain", ["", "a--b", "-a", "a-", "a.b", "output", "dead", "ä", 7])
def test_domain_that_cannot_name_a_queue_is_refused(domain: Any) -> None:
    with pytest.raises(OptionError, match="domain is"):
        TaskClient(domain, broker="memory://")


def test_almost_right_choice_is_asked_back() -> None:
    with pytest.raises(OptionError, match="did you mean 'raise'"):
        TaskClient("app", broker="memory://", on_error="rais")


def test_unknown_broker_is_refused_with_what_there_is() -> None:
    with pytest.raises(
        OptionError, match=r"'kafka://x'.*sqs://, sqlite:///path.db, memory:// and redis://host:port/db"
    ):
        TaskClient("app", broker="kafka://x")


def test_option_error_is_a_value_error_and_the_error_of_old() -> None:
    for kind in (SqspipesError, ValueError, sqspipes.task_client.TaskClientError):
        with pytest.raises(kind):
            TaskClient("app", broker="memory://", retries=-1)


def test_fifo_true_is_accepted() -> None:
    TaskClient("app", broker="memory://", fifo=True)


def test_fifo_false_is_refused_with_the_reason() -> None:
    with pytest.raises(OptionError, match=r"fifo is False.*order.*FIFO queues"):
        TaskClient("app", broker="memory://", fifo=False)


def test_arguments_of_old_keep_their_places() -> None:
    client = TaskClient("app", "key", "secret", "eu-west-1", False, True, broker="memory://")
    assert client.domain == "app"


@pytest.mark.parametrize("given", [{"aws_key": "k"}, {"aws_secret": "very-secret"}])
def test_half_an_account_is_refused_without_telling_it(given: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="aws_key and aws_secret") as caught:
        TaskClient("app", broker="sqs://", **given)
    assert "very-secret" not in str(caught.value)


def test_client_has_one_class_in_three_places() -> None:
    assert sqspipes.client.TaskClient is sqspipes.TaskClient is sqspipes.task_client.TaskClient


# Where the broker comes from


def test_broker_may_be_an_object(domain: str, make_broker: MakeBroker) -> None:
    broker = make_broker("memory")
    with TaskClient(domain, broker=broker).register_tasks([task]) as client:
        client.put(1)
        assert broker.depth(client.queue_names[0]).waiting == 1


def test_broker_that_was_given_is_not_closed(domain: str, make_broker: MakeBroker) -> None:
    broker = make_broker("memory")
    with TaskClient(domain, broker=broker).register_tasks([task]) as client:
        client.put(1)
    assert broker.depth(client.queue_names[0]).waiting == 1
    broker.close()


def test_broker_comes_from_the_environment(
    domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQSPIPES_BROKER", f"sqlite:///{tmp_path}/env.db")
    with TaskClient(domain).register_tasks([task]) as client:
        client.put(1)
    assert (tmp_path / "env.db").exists()


def test_broker_is_sqs_where_nothing_is_said(
    domain: str, ministack: Server, no_account: pytest.MonkeyPatch
) -> None:
    no_account.setenv("AWS_ENDPOINT_URL_SQS", ministack.url)
    no_account.setenv("AWS_ACCESS_KEY_ID", "x")
    no_account.setenv("AWS_SECRET_ACCESS_KEY", "x")
    no_account.setenv("AWS_REGION", "eu-central-1")
    with TaskClient(domain).register_tasks([task]) as client:
        client.put(1)
        assert client.status().levels[0].waiting == 1


def test_session_of_boto3_is_taken(domain: str, ministack: Server, no_account: pytest.MonkeyPatch) -> None:
    session = boto3.Session("x", "x", region_name="eu-west-3")
    with TaskClient(domain, broker="sqs://", endpoint_url=ministack.url, session=session) as client:
        client.register_tasks([task]).put(1)
        assert client.status().levels[0].waiting == 1


def test_profile_of_the_environment_is_taken(
    domain: str, ministack: Server, no_account: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    account = "aws_access_key_id = x\naws_secret_access_key = x\nregion = eu-north-1\n"
    (tmp_path / "config").write_text(f"[profile work]\n{account}", encoding="utf-8")
    no_account.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    no_account.setenv("AWS_PROFILE", "work")
    with TaskClient(domain, endpoint_url=ministack.url).register_tasks([task]) as client:
        client.put(1)
        assert client.status().levels[0].waiting == 1


@pytest.mark.parametrize("region", ["me-central-2", "us-gov-west-1", "mars-north-1"])
def test_every_region_is_allowed(region: str, domain: str, ministack: Server) -> None:
    account = {**SQS, "aws_region": region, "endpoint_url": ministack.url}
    with TaskClient(domain, **account).register_tasks([task]) as client:
        client.create_queues()


def test_aws_arguments_are_unused_by_other_brokers(domain: str) -> None:
    with TaskClient(domain, "k", "s", "nowhere", broker="memory://", endpoint_url="x") as client:
        client.register_tasks([task]).put(1)


def test_missing_credentials_name_three_ways_and_the_way_without(
    domain: str, no_account: pytest.MonkeyPatch
) -> None:
    client = TaskClient(domain, aws_region="eu-west-1").register_tasks([task])
    with pytest.raises(CredentialsError) as caught:
        client.put(1)
    for way in ("aws_key", "AWS_ACCESS_KEY_ID", "session", "SQSPIPES_BROKER=sqlite:///pipe.db"):
        assert way in str(caught.value)


def test_secret_is_in_no_repr_and_no_error(domain: str) -> None:
    account = {"aws_key": "AKIDEXAMPLE", "aws_secret": "very-secret", "aws_region": "eu-west-1"}
    closed = f"http://127.0.0.1:{free_port()}"
    client = TaskClient(domain, broker="sqs://", endpoint_url=closed, **account).register_tasks([task])
    with pytest.raises(SqspipesError) as caught:
        client.put(1, timeout=0.2)
    assert "very-secret" not in repr(client) + repr(caught.value) + str(caught.value) + str(client.tasks)


# What the client does with threads, values and its end


def test_first_use_may_come_from_many_threads_at_once(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen, start = Seen(), threading.Barrier(8)
    with piped(domain, pipe_broker, {"method": seen.take, "workers": 4}) as client:

        def put(number: int) -> None:
            start.wait()
            client.put(number)

        threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with client.start():
            assert sorted(seen.wait(8)) == list(range(8))


def test_json_default_encodes_what_json_cannot(domain: str, pipe_broker: dict[str, Any]) -> None:
    seen, day = Seen(), datetime(2024, 2, 29, tzinfo=UTC)

    def fetch(value: str) -> dict[str, Any]:
        return {"put": value, "made": day}

    with piped(domain, pipe_broker, fetch, seen.take, json_default=datetime.isoformat) as client:
        client.put(day)
        with client.start():
            assert seen.wait(1) == [{"put": day.isoformat(), "made": day.isoformat()}]


def test_error_about_json_names_the_path() -> None:
    rows = [{"id": 1}, {"id": 2}, {"id": 3}, {"created": datetime(2024, 2, 29, tzinfo=UTC)}]
    expected = r"value is not JSON: \$\.rows\[3\]\.created is a datetime"
    client = TaskClient("app", broker="memory://").register_tasks([task])
    with client, pytest.raises(ValueError, match=expected):
        client.put({"rows": rows})


def test_result_that_is_not_json_is_a_dead_letter_that_names_task_and_path(
    domain: str, pipe_broker: dict[str, Any]
) -> None:
    def fetch(value: Any) -> Any:
        return {"rows": [{}, {}, {}, {"created": datetime(2024, 2, 29, tzinfo=UTC)}]}

    with piped(domain, pipe_broker, fetch, task) as client:
        client.put(1)
        run_until(client, dead=1)
        (letter,) = client.dead_letters("fetch")
    assert letter.error == "result of fetch is not JSON: $.rows[3].created is a datetime"
    assert letter.attempts == 1


def test_close_may_be_called_twice(domain: str, pipe_broker: dict[str, Any]) -> None:
    client = piped(domain, pipe_broker, task)
    client.put(1)
    client.close()
    client.close()


def test_leaving_the_client_stops_its_runs(domain: str, pipe_broker: dict[str, Any]) -> None:
    with piped(domain, pipe_broker, task) as client:
        run = client.start()
    assert run.wait(0).reason == "stopped"


def test_same_file_may_be_given_relative_and_absolute(
    domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_broker: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    with TaskClient(domain, broker="sqlite:///pipe.db").register_tasks([task]) as client:
        client.put(1)
        assert make_broker("sqlite").depth(client.queue_names[0]).waiting == 1
