"""Results as lines of JSON, and pipelines that are classes."""

from __future__ import annotations

import json

import pytest

from tests.integration.shell import Shell

PIPELINE = """
from sqspipes import Pipeline, Step


class Double(Step):
    def consume(self, instructions):
        return {{"twice": 2 * instructions}}


class Doubler(Pipeline):
    name = {domain!r}
    steps = [Double]
    output = "doubled"
"""


def test_results_of_a_run_with_an_output_are_lines_of_json(any_shell: Shell) -> None:
    text = (any_shell.folder / "pipelines.py").read_text()
    any_shell.write("pipelines.py", text.replace('print("shown", value, flush=True)', "return [value]"))
    any_shell.done("put", "numbers", "1", "2", "--group", "g")
    any_shell.done("run", "numbers", "--output", "doubled", "--drain", "--drain-seconds", "0.5")
    assert any_shell.done("results", "numbers", "--output", "doubled", "-n", "2") == "[2]\n[4]\n"


def test_pipeline_is_found_by_its_name_fed_run_and_read(shell: Shell) -> None:
    shell.write("doubler_pipelines.py", PIPELINE.format(domain="doubler"))
    assert "doubler_pipelines:Doubler" in shell.done("list")
    shell.done("put", "doubler", "1", "2", "3", "--group", "g")
    shell.done("run", "doubler", "--drain")
    lines = shell.done("results", "doubler", "-n", "2").splitlines()
    assert [json.loads(line) for line in lines] == [{"twice": 2}, {"twice": 4}]
    rest = shell.done("results", "doubler_pipelines:Doubler", "--timeout", "1").splitlines()
    assert [json.loads(line) for line in rest] == [{"twice": 6}]


def test_results_follow_until_an_interrupt(shell: Shell) -> None:
    shell.write("doubler_pipelines.py", PIPELINE.format(domain="doubler"))
    with shell.started("results", "doubler") as process:
        assert process.stdout is not None
        shell.done("put", "doubler", "21")
        shell.done("run", "doubler", "--drain")
        assert json.loads(process.stdout.readline()) == {"twice": 42}


def test_pipe_without_an_output_says_so(shell: Shell) -> None:
    assert "this client has no output: give it one" in shell.refused("results", "numbers")


@pytest.mark.parametrize("command", ["run", "results"])
def test_name_that_no_output_can_have_is_refused(command: str, shell: Shell) -> None:
    assert "output is 'a--b'" in shell.refused(command, "numbers", "--output", "a--b")
