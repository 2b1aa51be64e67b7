"""Queues are emptied and deleted after they were named and the domain was typed."""

from __future__ import annotations

import pytest

from sqspipes import TaskClient
from tests.integration.shell import Shell
from tests.integration.support import until


def queues(shell: Shell) -> list[str]:
    """Return the names of the pipe's queues."""
    with shell.client() as client:
        return client.queue_names


def names_found(shell: Shell) -> int:
    """Return how many messages strays hold, for a client that knows no task but one that nobody has."""
    with TaskClient(shell.domain, **shell.arguments).register_tasks([{"name": "nobody"}]) as client:
        return len(client.status().strays)


def test_purge_empties_the_queues_that_it_names(any_shell: Shell) -> None:
    any_shell.done("put", "numbers", "1", "2")
    said = any_shell.done("purge", "numbers", "--yes-domain", any_shell.domain)
    assert said.splitlines() == [*queues(any_shell), "5 queues emptied"]
    until(lambda: any_shell.held() == [0, 0, 0, 0])


def test_delete_removes_the_queues_that_it_names_and_no_others(any_shell: Shell) -> None:
    any_shell.done("put", "numbers", "1")
    with TaskClient(any_shell.domain, **any_shell.arguments).register_tasks([{"name": "other"}]) as other:
        other.put("stays")
        said = any_shell.done("delete", "numbers", "--yes-domain", any_shell.domain)
        assert said.splitlines() == [*queues(any_shell), "5 queues deleted"]
        assert other.status().levels[0].waiting == 1
    until(lambda: names_found(any_shell) == 1)


@pytest.mark.parametrize("command", ["purge", "delete"])
def test_typed_domain_does_it(command: str, shell: Shell) -> None:
    shell.done("put", "numbers", "1")
    with shell.terminal(command, "numbers") as terminal:
        assert all(name in terminal.wait_for(f"type the domain, {shell.domain}: ") for name in queues(shell))
        terminal.type(f"{shell.domain}\n")
        assert terminal.end() == 0
    assert shell.held() == [0, 0, 0, 0]


@pytest.mark.parametrize("command", ["purge", "delete"])
@pytest.mark.parametrize(("keys", "code"), [("yes\n", 1), ("\n", 1), ("\x04", 1), ("\x03", 130)])
def test_any_other_answer_changes_nothing(command: str, keys: str, code: int, shell: Shell) -> None:
    shell.done("put", "numbers", "1")
    with shell.terminal(command, "numbers") as terminal:
        terminal.wait_for("type the domain")
        terminal.type(keys)
        assert (terminal.end(), "Traceback" in terminal.shown) == (code, False)
    assert shell.held() == [1, 0, 0, 0]


@pytest.mark.parametrize("command", ["purge", "delete"])
def test_without_a_terminal_the_domain_must_be_given_and_be_right(command: str, shell: Shell) -> None:
    shell.done("put", "numbers", "1")
    asked = shell.refused(command, "numbers", input=f"{shell.domain}\n", code=2)
    wrong = shell.refused(command, "numbers", "--yes-domain", "other")
    assert asked.endswith(f"nobody can be asked: give --yes-domain {shell.domain}")
    assert wrong == f"Error: nothing was done: the domain is {shell.domain!r}, not 'other'"
    assert shell.held() == [1, 0, 0, 0]
