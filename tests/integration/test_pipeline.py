"""Pipeline: a client declared as a class, with steps, that is fed, run and read."""

from __future__ import annotations

from typing import Any

import pytest

from sqspipes import OptionError, Pipeline, Step
from tests.integration.support import QUICK, Seen, run_until


class Download(Step):
    """The first step of the tests' pipeline."""

    workers = 2

    def consume(self, instructions: dict[str, Any]) -> None:
        instructions["download"] = f"<{instructions['url']}>"
        self.produce(instructions)


def cached(instructions: dict[str, Any]) -> list[str]:
    """Return what a cache would hold: a function among the steps."""
    return [instructions["url"], instructions["download"]]


@pytest.fixture
def pipeline(domain: str, pipe_broker: dict[str, Any]) -> Any:
    """A pipeline on each broker in turn, closed after the test."""

    class Downloader(Pipeline):
        name = domain
        steps = (Download, cached)
        output = "cached"

    with Downloader(**{**QUICK, **pipe_broker}) as made:
        yield made


def test_pipeline_is_fed_runs_in_the_background_and_gives_its_results(pipeline: Any) -> None:
    assert (pipeline.started, pipeline.is_running()) == (False, False)
    pipeline.feed({"url": "a"}, group="g")
    assert pipeline.feed_many([{"url": "b"}, {"url": "c"}], group="g") == 2
    run = pipeline.run_daemon()
    assert (pipeline.started, pipeline.is_running()) == (True, True)
    assert [pipeline.get_result(15) for _ in range(3)] == [["a", "<a>"], ["b", "<b>"], ["c", "<c>"]]
    pipeline.stop()
    assert not pipeline.started
    assert run.wait().done == 6
    assert not pipeline.is_running()


def test_pipeline_that_runs_is_not_started_twice(domain: str) -> None:
    class Twice(Pipeline):
        name = domain
        steps = (Download, cached)

    with Twice(broker="memory://", **QUICK) as pipeline:
        run = pipeline.run_daemon()
        assert pipeline.run_daemon() is run
        other = pipeline.run_daemon("cached")
        assert other is not run
        pipeline.stop()
        assert [each.wait().reason for each in (run, other)] == ["stopped", "stopped"]
        assert pipeline.run_daemon() is not run
        assert pipeline.started
    assert not pipeline.started


def test_step_knows_its_name_and_may_stand_in_two_places(domain: str) -> None:
    class Name(Step):
        def consume(self, instructions: list[str]) -> None:
            self.produce([*instructions, self.name])

    class Names(Pipeline):
        name = domain
        steps = (Name, {"method": Name, "name": "again"})

    with Names(broker="memory://", **QUICK) as pipeline:
        pipeline.feed([])
        assert list(pipeline.client.run(iterate=True, drain=True)) == [["Name", "again"]]
    with pytest.raises(OptionError, match="give each a name of its own"):
        type("Same", (Pipeline,), {"name": domain, "steps": (Name, Name)})(broker="memory://")


@pytest.mark.parametrize("output", ["lpush@words", "set@words"])
def test_other_outputs_of_lineup_are_refused(output: str, domain: str) -> None:
    with pytest.raises(OptionError, match="rpush@key"):
        type("Other", (Pipeline,), {"name": domain, "steps": (Download,)})(broker="memory://", output=output)


def test_results_are_iterated_over(pipeline: Any) -> None:
    pipeline.feed({"url": "a"})
    run_until(pipeline.client, done=2)
    assert list(pipeline.results(timeout=1.0)) == [["a", "<a>"]]


def test_names_say_where_messages_are(pipeline: Any, domain: str) -> None:
    assert (pipeline.name, pipeline.output) == (domain, "cached")
    assert pipeline.input == f"{domain}--Download.fifo"
    assert [task.name for task in pipeline.client.tasks] == ["Download", "cached"]


def test_pipeline_runs_in_the_foreground_and_may_be_named_by_its_class(domain: str) -> None:
    seen = Seen()

    class Short(Pipeline):
        steps = (Download, seen.take)

        def initialize(self) -> None:
            self.fed = self.feed({"url": "a"}, id="one")

    with Short(broker="memory://") as short:
        assert short.name == "Short"
        assert short.fed == "one"
        assert short.run(drain=True).reason == "drained"
    assert seen.values == [{"url": "a", "download": "<a>"}]


def test_one_class_makes_several_pipelines(domain: str) -> None:
    class Twice(Pipeline):
        name = domain
        steps = (Download,)

    with Twice(broker="memory://", output="here") as one, Twice(broker="memory://") as other:
        assert (one.output, other.output) == ("here", None)
        one.feed({"url": "a"})
        assert other.client.status().levels[0].waiting == 0


def test_pipeline_without_steps_is_refused() -> None:
    class Empty(Pipeline):
        pass

    with pytest.raises(OptionError, match=r"Empty: steps is \(\): allowed is a list with at least one"):
        Empty(broker="memory://")


def test_option_that_no_client_has_is_refused() -> None:
    class Short(Pipeline):
        steps = (cached,)

    with pytest.raises(TypeError, match="leese"):
        Short(broker="memory://", leese=3)


def test_variable_of_lineup_counts_where_no_other_names_a_broker(
    domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(Pipeline):
        name = domain
        steps = (cached,)

    monkeypatch.delenv("SQSPIPES_BROKER", raising=False)
    monkeypatch.setenv("LINEUP_REDIS_URI", "redis://127.0.0.1:9/3")
    assert "redis://127.0.0.1:9/3" in repr(Short())
    assert "memory://" in repr(Short(broker="memory://"))
    monkeypatch.setenv("SQSPIPES_BROKER", "sqlite:///pipe.db")
    assert "sqlite:///" in repr(Short())


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("redis://15@localhost:7001/s/3?cret", "redis://:s%2F3%3Fcret@localhost:7001/15"),
        ("redis://0@localhost:6379", "redis://localhost:6379/0"),
        ("redis://:secret@localhost:6379/2", "redis://:secret@localhost:6379/2"),
    ],
)
def test_variable_of_lineup_may_be_in_its_own_words(
    domain: str, monkeypatch: pytest.MonkeyPatch, variable: str, url: str
) -> None:
    class Short(Pipeline):
        name = domain
        steps = (cached,)

    monkeypatch.delenv("SQSPIPES_BROKER", raising=False)
    monkeypatch.setenv("LINEUP_REDIS_URI", variable)
    with Short() as short:
        assert short.client._broker.full_url == url
        assert "cret" not in repr(short.client)


def test_output_may_be_named_until_a_run_begins(domain: str) -> None:
    class Short(Pipeline):
        name = domain
        steps = (cached,)

    with Short(broker="memory://") as short:
        assert short.client.output is None
        short.client.output = "late"
        assert short.client.output == "late"
        with (
            short.run_daemon(),
            pytest.raises(OptionError, match="output cannot be changed while a run goes on"),
        ):
            short.client.output = None
        short.client.output = None
        with pytest.raises(OptionError, match="this client has no output"):
            short.get_result()
