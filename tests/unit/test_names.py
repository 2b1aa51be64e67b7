"""Queue names: what is made of domain and task is read back as it was, and nothing else is taken for ours."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sqspipes.defaults import LONGEST_QUEUE_NAME, MOST_PRIORITIES
from sqspipes.errors import OptionError
from sqspipes.messages import queue_names
from sqspipes.messages.queue_names import QueueName
from tests.builders import shown

# Built up, not filtered with the expression that is under test.
word = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=6)
part = (
    st.lists(word, min_size=1, max_size=3).map("-".join).filter(lambda text: text not in ("output", "dead"))
)
odd_parts = st.sampled_from(["p1", "p3", "p15", "p16", "deaD", "outputs", "_", "0", "fifo", "p0", "p01"])
part = part | odd_parts
level = st.integers(0, MOST_PRIORITIES - 1)


def made(said: QueueName) -> str:
    """Return the name of what a name says."""
    if said.kind == "dead":
        return queue_names.dead_queue(said.domain, said.task)
    if said.kind == "output":
        return queue_names.output_queue(said.domain, said.task)
    return queue_names.task_queue(said.domain, said.task, said.level)


said = st.builds(QueueName, part, part, st.just("task"), level) | st.builds(
    QueueName, part, part, st.sampled_from(["dead", "output"]), st.just(0)
)


@given(said)
def test_name_is_read_back_as_what_it_was_made_of(one: QueueName) -> None:
    assert queue_names.parse(made(one)) == one


@given(said, said)
def test_no_two_queues_have_one_name(one: QueueName, other: QueueName) -> None:
    assert (made(one) == made(other)) == (one == other)


@given(said)
def test_name_is_one_that_sqs_takes(one: QueueName) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,75}\.fifo", made(one))


@given(part)
def test_part_of_a_name_is_taken_as_it_is(one: str) -> None:
    assert queue_names.checked_part("domain", one) == one


@given(st.text() | st.text("ab-_.p1", max_size=8).map(lambda text: text + ".fifo"))
@example("a--b--p01.fifo")
@example("a--b--p16.fifo")
@example("a--b--p0.fifo")
@example("a--b--p1\n.fifo")
@example("a--b--p\u0661.fifo")
@example("a--dead.fifo")
@example("a--output.fifo")
@example("a--output--dead.fifo")
@example("a---b.fifo")
@example("a--b--dead--dead.fifo")
@example("--.fifo")
@example(".fifo")
def test_any_text_is_a_name_of_ours_or_none(text: str) -> None:
    found = queue_names.parse(text)
    if found is not None:
        assert made(found) == text


@given(st.text("ab-_", max_size=6), st.text("ab-_", max_size=6))
def test_parts_that_would_be_ambiguous_are_refused(domain: str, task: str) -> None:
    try:
        queue_names.checked_part("domain", domain)
        queue_names.checked_part("task", task)
    except OptionError:
        return
    assert queue_names.parse(queue_names.task_queue(domain, task, 0)) == QueueName(domain, task, "task")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "-",
        "a--b",
        "-a",
        "a-",
        "a b",
        "a.b",
        "é",
        "a\n",
        "output",
        "dead",
        "a/b",
        "٣",
        None,
        1,
        b"a",
        ["a"],
    ],
    ids=shown,
)
def test_part_that_is_not_allowed_is_refused_by_its_option(value: object) -> None:
    with pytest.raises(OptionError, match="domain is "):
        queue_names.checked_part("domain", value)


def test_longest_names_fit_in_every_kind_of_queue() -> None:
    domain = "d" * 30
    task = "t" * (LONGEST_QUEUE_NAME - len(f"{domain}----dead.fifo"))
    queue_names.checked_length("name", domain, task)
    for queue in (
        queue_names.dead_queue(domain, task),
        queue_names.task_queue(domain, task, MOST_PRIORITIES - 1),
    ):
        assert len(queue) <= LONGEST_QUEUE_NAME
        assert queue_names.parse(queue) is not None
    with pytest.raises(OptionError, match="81 characters"):
        queue_names.checked_length("name", domain, task + "t")


def test_longer_name_is_none_of_ours() -> None:
    assert queue_names.parse("a" * 70 + "--" + "b" * 10 + ".fifo") is None
