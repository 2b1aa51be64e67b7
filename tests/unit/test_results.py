"""What a task may return besides a plain value, checked when it is made."""

from __future__ import annotations

import dataclasses

import pytest

from sqspipes.errors import OptionError
from sqspipes.tasks.results import EmptyTaskOutput, Output, TaskCallback, ends_line
from tests.builders import shown


def test_output_takes_names_as_text_and_ints() -> None:
    output = Output(1, task="next", group=7, id="mine", priority=15)
    assert (output.value, output.task, output.group, output.id, output.priority) == (
        1,
        "next",
        "7",
        "mine",
        15,
    )


def test_output_leaves_open_what_is_not_said() -> None:
    output = Output({"a": 1})
    assert (output.task, output.group, output.id, output.priority) == (None, None, None, None)


@pytest.mark.parametrize("value", [TaskCallback(1, print), Output(1)])
def test_output_of_what_nobody_would_look_at_is_refused(value: object) -> None:
    with pytest.raises(OptionError, match=f"Output: value is an? {type(value).__name__}"):
        Output(value)


def test_output_is_a_value() -> None:
    assert Output(1, group="a") == Output(1, group="a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Output(1).value = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"task": 1}, "task is 1"),
        ({"group": ""}, "group is "),
        ({"group": 1.5}, "group is 1.5"),
        ({"group": True}, "group is True"),
        ({"id": "x" * 1001}, "id is a text of 1001 characters"),
        ({"id": b"x"}, "id is b'x'"),
        ({"priority": -1}, "priority is -1"),
        ({"priority": 16}, "priority is 16"),
        ({"priority": True}, "priority is True"),
        ({"priority": "1"}, "priority is '1'"),
    ],
    ids=shown,
)
def test_output_names_the_option_that_is_wrong(options: dict[str, object], says: str) -> None:
    with pytest.raises(OptionError, match="Output: ") as caught:
        Output(1, **options)  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_callback_keeps_its_arguments() -> None:
    callback = TaskCallback(1, print, ["a", "b"])
    assert (callback.result, callback.callback, callback.callback_args) == (1, print, ("a", "b"))
    assert TaskCallback(1, print, None).callback_args == ()  # type: ignore[arg-type]


def test_callback_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(OptionError, match="callback is 'print'"):
        TaskCallback(1, "print")  # type: ignore[arg-type]


@pytest.mark.parametrize("ignore_none", [True, False])
def test_empty_output_ends_the_line_as_class_and_as_instance(ignore_none: bool) -> None:
    assert ends_line(EmptyTaskOutput, ignore_none)
    assert ends_line(EmptyTaskOutput(), ignore_none)


def test_none_ends_the_line_only_where_it_is_ignored() -> None:
    assert ends_line(None, True)
    assert not ends_line(None, False)


@pytest.mark.parametrize("value", [0, "", [], {}, False, 0.0])
def test_empty_values_are_handed_on(value: object) -> None:
    assert not ends_line(value, True)
