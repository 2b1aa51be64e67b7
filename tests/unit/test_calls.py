"""One call: what a function returns becomes outputs, each under an id that a second call repeats."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqspipes.calls import error_text, perform
from sqspipes.calls.entries import letter_entry
from sqspipes.calls.held import Held, Origin
from sqspipes.calls.outcome import DONE, Abandoned, Call, Emission, Ending, Outcome
from sqspipes.defaults import FIRST_BACKOFF, LETTER_BYTES, LONGEST_NAME
from sqspipes.errors import DecodingError, EncodingError, HopLimitError, OptionError
from sqspipes.messages.body import decode, encode, foreign
from sqspipes.messages.ids import result_id
from sqspipes.messages.message import Death, Message
from sqspipes.tasks.plan import Plan
from sqspipes.tasks.registration import make_tasks
from sqspipes.tasks.results import EmptyTaskOutput, Output, TaskCallback
from sqspipes.tasks.task import Task
from tests.builders import held_of, shown

DEFAULTS: dict[str, Any] = {
    "lease": 60.0, "retries": 8, "backoff": 0.0, "non_retryable": (), "on_error": "retry", "strict": False,
    "linger": None,
}  # fmt: skip


@dataclass
class Recorder:
    """An engine that keeps what it is given, in order; ``full_after`` outputs it has had enough."""

    events: list[Any] = field(default_factory=list)
    full_after: int | None = None

    @property
    def emitted(self) -> list[Emission]:
        return [event for event in self.events if isinstance(event, Emission)]

    def emit(self, origin: Origin, emission: Emission, *, last: bool = False) -> None:
        if self.full_after is not None and len(self.emitted) >= self.full_after:
            raise Abandoned
        self.events.append(emission)

    def flush(self, origin: Origin) -> None:
        self.events.append("flush")

    def done(self, *ended: tuple[Call, Sequence[Outcome]]) -> None:
        raise AssertionError

    def abandoned(self, call: Call) -> None:
        raise AssertionError


def work(value: Any) -> Any:
    return value


def plan_of(function: Callable[..., Any], *, last: bool = False, **others: Any) -> Plan:
    """Return a plan of the first of two tasks, or of the last one."""
    options = {key: others.pop(key) for key in list(others) if key in DEFAULTS or key == "args"}
    tasks = make_tasks(
        "domain", [{"method": function, "name": "work", **options}, {"name": "next"}], DEFAULTS
    )
    rest: dict[str, Any] = {"ignore_none": True, "json_default": None, **others}
    return Plan(tasks[0], function, None if last else tasks[1], {task.name: task for task in tasks}, **rest)


def performed(
    function: Callable[..., Any], held: Held | None = None, **others: Any
) -> tuple[Outcome, Recorder]:
    engine = Recorder()
    outcome = perform.perform(plan_of(function, **others), held_of("input") if held is None else held, engine)
    return outcome, engine


def returning(result: Any) -> Callable[[Any], Any]:
    return lambda value: result


def yielding(*results: Any) -> Callable[[Any], Any]:
    def generate(value: Any) -> Iterator[Any]:
        yield from results

    return generate


# Results


def test_result_goes_to_the_next_task_with_the_inputs_group_and_priority() -> None:
    held = held_of("input", group="lane")
    held.message = replace(held.message, priority=3)
    outcome, engine = performed(returning({"a": 1}), held)
    assert outcome is DONE
    assert engine.emitted == [
        Emission({"a": 1}, '{"a":1}', result_id(held.message.id, "work"), "lane", 3, "next")
    ]


def test_function_gets_the_value_and_the_tasks_args() -> None:
    held = held_of("input")
    outcome, engine = performed(lambda *given: list(given), held, args=[1, "b"])
    assert outcome is DONE
    assert engine.emitted[0].value == ["input", 1, "b"]


def test_output_goes_where_it_says() -> None:
    _, engine = performed(returning(Output(1, task="work", group="mine", id=7, priority=2)))
    assert engine.emitted == [Emission(1, "1", "7", "mine", 2, "work")]


def test_result_of_the_last_task_ends_there() -> None:
    unencodable = object()
    outcome, engine = performed(returning(unencodable), last=True)
    assert outcome is DONE
    assert [(one.value, one.text, one.task) for one in engine.emitted] == [(unencodable, None, None)]


@pytest.mark.parametrize("nothing", [None, EmptyTaskOutput, EmptyTaskOutput()])
def test_nothing_is_handed_on_for_nothing(nothing: Any) -> None:
    for function in (returning(nothing), yielding(nothing), returning(TaskCallback(nothing, print))):
        outcome, engine = performed(function)
        assert outcome is DONE
        assert not engine.emitted


def test_none_is_handed_on_where_it_is_not_ignored() -> None:
    _, engine = performed(returning(None), ignore_none=False)
    assert [one.text for one in engine.emitted] == ["null"]


def test_list_is_one_result_and_a_generator_several() -> None:
    assert len(performed(returning([1, 2]))[1].emitted) == 1
    assert [one.value for one in performed(yielding(1, 2))[1].emitted] == [1, 2]


def test_generator_is_resumed_when_its_value_was_taken() -> None:
    engine = Recorder()

    def generate(value: Any) -> Iterator[Any]:
        for number in range(3):
            assert len(engine.emitted) == number
            yield number

    assert perform.perform(plan_of(generate), held_of(), engine) is DONE


def test_callback_runs_when_the_result_is_safe() -> None:
    engine = Recorder()
    callback = TaskCallback(1, lambda *args: engine.events.append(args), ["a", 2])
    assert perform.perform(plan_of(returning(callback)), held_of(), engine) is DONE
    assert [event if not isinstance(event, Emission) else event.value for event in engine.events] == [
        1, "flush", ("a", 2),
    ]  # fmt: skip


def test_each_callback_of_a_generator_runs_after_its_own_value() -> None:
    engine = Recorder()
    values = [TaskCallback(number, engine.events.append, [f"called {number}"]) for number in range(2)]
    assert perform.perform(plan_of(yielding(*values)), held_of(), engine) is DONE
    seen = [event if not isinstance(event, Emission) else event.value for event in engine.events]
    assert seen == [0, "flush", "called 0", 1, "flush", "called 1"]


def test_callback_of_a_result_that_was_refused_does_not_run() -> None:
    held = held_of()
    held.refused = "too large"
    called: list[int] = []
    performed(returning(TaskCallback(1, called.append, [1])), held)
    assert not called


def test_callback_that_raises_makes_the_call_fail() -> None:
    outcome, _ = performed(returning(TaskCallback(1, lambda: 1 / 0)))
    assert outcome.ending is Ending.RETRY


# Ids

outputs = st.lists(
    st.recursive(
        st.none() | st.integers(0, 2) | st.text("ab", max_size=1) | st.booleans(), st.lists, max_leaves=3
    )
    | st.builds(
        Output,
        st.integers(0, 1),
        group=st.sampled_from([None, "g", "h"]),
        task=st.sampled_from([None, "work"]),
    ),
    max_size=8,
)


def ids_of(values: Sequence[Any]) -> list[str]:
    held = held_of("input", id="same", group="lane")
    return [one.id for one in performed(yielding(*values), held, ignore_none=False)[1].emitted]


@given(st.data(), outputs)
def test_ids_are_the_same_in_any_order(data: st.DataObject, values: list[Any]) -> None:
    shuffled = data.draw(st.permutations(values))
    assert sorted(ids_of(values)) == sorted(ids_of(shuffled))


@given(outputs)
def test_every_output_of_a_call_has_an_id_of_its_own(values: list[Any]) -> None:
    ids = ids_of(values)
    assert len(set(ids)) == len(ids) == len(values)


@given(outputs, st.integers(0, 8))
def test_call_that_fails_half_way_repeats_the_ids_it_had(values: list[Any], half: int) -> None:
    assert ids_of(values)[:half] == ids_of(values[:half])


@given(outputs)
def test_equal_outputs_are_counted(values: list[Any]) -> None:
    ids = Counter(ids_of(values * 2))
    assert set(ids_of(values)) <= set(ids)
    assert set(ids.values()) <= {1}


def test_ids_differ_by_where_an_output_goes() -> None:
    values = [1, Output(1, group="g"), Output(1, priority=1), Output(1, task="work"), "1", 1.0, True]
    assert len({ids_of([value])[0] for value in values}) == len(values)


def test_ids_are_the_same_for_values_that_differ_by_the_order_of_their_keys() -> None:
    one, other = {"a": {"b": 1, "c": 2}, "d": 3}, {"d": 3, "a": {"c": 2, "b": 1}}
    assert ids_of([one]) == ids_of([other])
    assert len(set(ids_of([one, other]))) == 2


def test_outputs_whose_id_is_given_are_not_counted_with_the_others() -> None:
    named = Output(1, id="mine")
    assert ids_of([named, 1, 1]) == ["mine", *ids_of([1, 1])]
    assert ids_of([1, named, 1])[::2] == ids_of([1, 1])


def test_keys_of_several_types_are_yielded_under_one_id() -> None:
    assert ids_of([{1: "a", "b": 2, None: 3}]) == ids_of([{"b": 2, None: 3, 1: "a"}])


def test_ids_are_those_of_the_stored_message_and_not_of_its_body() -> None:
    stored = [
        replace(held_of(id="stored").message, id=id, group=group, priority=priority, first_put=put)
        for id, group, priority, put in [("x", "g", 0, 1.0), ("y", "g", 0, 1.0), ("x", None, 1, 2.0)]
    ]
    held = held_of(id="stored")
    results = set()
    for message in stored:
        held.message = message
        results.add(performed(returning(1), held)[1].emitted[0].id)
    assert len(results) == 1


def test_ids_differ_by_input_and_by_kind() -> None:
    one, other = held_of(id="one"), held_of(id="other")
    assert performed(returning(1), one)[1].emitted[0].id != performed(returning(1), other)[1].emitted[0].id
    assert performed(returning(1), one)[1].emitted[0].id != performed(yielding(1), one)[1].emitted[0].id
    assert performed(returning(1), one)[1].emitted[0].id == performed(returning(2), one)[1].emitted[0].id


# Failures


def failing(error: BaseException) -> Callable[[Any], Any]:
    def fail(value: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()], ids=shown
)
def test_whatever_a_task_raises_is_a_failed_attempt(error: BaseException) -> None:
    outcome, _ = performed(failing(error))
    assert (outcome.ending, outcome.error) == (Ending.RETRY, error)


def test_last_attempt_makes_a_dead_letter() -> None:
    held = held_of()
    held.failures = 1
    assert performed(failing(ValueError("no")), held, retries=2)[0].ending is Ending.RETRY
    held.failures = 2
    outcome, _ = performed(failing(ValueError("no")), held, retries=2)
    assert outcome.ending is Ending.DEAD
    assert outcome.death is not None
    assert (outcome.death.task, outcome.death.error_type, outcome.death.error, outcome.death.attempts) == (
        "work", "ValueError", "no", 3,
    )  # fmt: skip
    assert outcome.death.traceback.endswith("ValueError: no\n")


def test_task_without_a_limit_never_gives_up() -> None:
    held = held_of()
    held.failures = 10**6
    assert performed(failing(ValueError()), held, retries=None)[0].ending is Ending.RETRY


def test_error_that_is_not_worth_retrying_is_final() -> None:
    assert performed(failing(KeyError("x")), non_retryable=(LookupError,))[0].ending is Ending.DEAD
    assert performed(failing(ValueError()), non_retryable=(LookupError,))[0].ending is Ending.RETRY


@pytest.mark.parametrize(
    "result",
    [object(), {"a": float("nan")}, b"x", {1, 2}, Output(1, task="nowhere"), Output(object())],
    ids=shown,
)
@pytest.mark.parametrize("kind", [returning, yielding])
def test_result_that_can_never_be_handed_on_is_final(kind: Callable[..., Any], result: Any) -> None:
    outcome, engine = performed(kind(result))
    assert outcome.ending is Ending.DEAD
    assert isinstance(outcome.error, EncodingError | OptionError)
    assert not engine.emitted


def test_error_of_a_task_that_raises_is_passed_on() -> None:
    error = ValueError()
    outcome, _ = performed(failing(error), on_error="raise")
    assert (outcome.ending, outcome.error) == (Ending.RAISE, error)


def test_outputs_before_the_error_stay_emitted() -> None:
    def generate(value: Any) -> Iterator[int]:
        yield 1
        raise ValueError

    outcome, engine = performed(generate)
    assert outcome.ending is Ending.RETRY
    assert [one.value for one in engine.emitted] == [1]


def test_call_that_was_given_up_is_no_failed_attempt() -> None:
    with pytest.raises(Abandoned):
        perform.perform(plan_of(yielding(1, 2, 3)), held_of(), Recorder(full_after=2))


def test_backoff_function_that_fails_costs_no_message() -> None:
    outcome, _ = performed(failing(ValueError()), backoff=lambda attempt, error: 1 / 0)
    assert (outcome.ending, outcome.delay) == (Ending.RETRY, FIRST_BACKOFF)


class UnprintableError(Exception):
    """An error that has no text."""

    def __str__(self) -> str:
        raise ValueError("no text")


def test_error_that_cannot_be_printed_is_a_failure_like_any_other() -> None:
    outcome, _ = performed(failing(UnprintableError()), retries=0)
    assert outcome.death is not None
    assert outcome.death.error_type == "UnprintableError"


# Dead letters

numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
unknown = st.dictionaries(st.text("xyz", min_size=1), values, max_size=2)
acceptable = st.builds(
    Message,
    id=st.text(min_size=1, max_size=LONGEST_NAME),
    value=values,
    group=st.none() | st.text(min_size=1, max_size=LONGEST_NAME),
    priority=st.integers(0, 15),
    first_put=st.floats(0, 4e9),
    redrives=st.integers(0, 10**6),
    extra=unknown,
)
sizes = st.sampled_from([0, 1, 100, 1_499, 10_000, 100_000])
said = st.builds(
    lambda text, times, end: text * times + end, st.text(min_size=1, max_size=4), sizes, st.text(max_size=20)
)
name = st.text("AZaz_é𝄞", min_size=1, max_size=3)


def death_of(error: BaseException, attempts: int = 9) -> Death:
    try:
        raise error
    except BaseException as caught:
        task: Task = plan_of(work).task
        return error_text.death(replace(task, name="t" * 64), caught, attempts)


@settings(max_examples=60, deadline=None)
@given(acceptable, said, name, sizes, st.integers(0, 10**9))
def test_dead_letter_of_any_acceptable_message_fits_its_room(
    message: Message, text: str, kind: str, times: int, attempts: int
) -> None:
    error = type((kind * times)[:100_000] or "E", (ValueError,), {})(text)
    body = encode(message)
    held = held_of(body=body)
    held.message = message
    death = death_of(error, attempts)
    entry = letter_entry(plan_of(work).task, held, death, len(body) + LETTER_BYTES)
    letter = json.loads(entry.body)
    assert letter["dead"]["error_type"] == death.error_type
    assert len(entry.body) <= len(body) + LETTER_BYTES


def test_dead_letter_says_how_an_error_began_and_how_its_traceback_ended() -> None:
    death = death_of(ValueError("begin " + "x" * 10_000 + " end"))
    assert death.error.startswith("begin xxx")
    assert death.error.endswith("...")
    assert death.traceback.startswith("...")
    assert death.traceback.endswith("end\n")


def test_dead_letter_has_the_value_as_it_was_received() -> None:
    body = encode(Message("x", {"a": 1}, first_put=1.0))
    held = held_of(body=body)
    held.message = decode(held.delivery)
    held.message.value["made"] = object()
    entry = letter_entry(plan_of(work).task, held, death_of(ValueError()), 10**6)
    assert json.loads(entry.body)["value"] == {"a": 1}


@pytest.mark.parametrize("body", ["1e999", '{"a": [-1e999]}', "not json", "[" * 100_000 + "]" * 100_000])
def test_dead_letter_of_what_cannot_be_written_again_has_its_text(body: str) -> None:
    held = held_of(body=body)
    try:
        held.message = decode(held.delivery)
    except DecodingError:
        held.message = foreign(held.delivery, raw=body)
    entry = letter_entry(plan_of(work).task, held, death_of(ValueError()), 10**6)
    letter = json.loads(entry.body)
    assert letter["raw"] == body
    assert letter["dead"]["error_type"] == "ValueError"


def test_foreign_body_that_leaves_no_room_stays_as_it_is() -> None:
    body = json.dumps("x" * 1_000)
    held = held_of(body=body)
    assert letter_entry(plan_of(work).task, held, death_of(ValueError()), len(body) + 10).body == body


def test_letter_of_each_stored_message_is_a_letter_of_its_own() -> None:
    def entry_of(stored: str) -> Any:
        held = held_of(body=encode(Message("x", 1, group="g")), id=stored)
        return letter_entry(plan_of(work).task, held, death_of(ValueError()), 10**6)

    assert entry_of("one").id == entry_of("one").id != entry_of("other").id
    assert entry_of("one").group == entry_of("one").id


def test_letter_carries_the_identity_of_its_message() -> None:
    held = held_of(body=encode(Message("x", 1, group="g")), id="stored")
    letter = json.loads(letter_entry(plan_of(work).task, held, death_of(ValueError()), 10**6).body)
    assert letter["dead"]["origin"] == "stored"


@pytest.mark.parametrize("hops", ["3", None, [1], 1.5])
def test_output_sent_back_with_hops_of_another_kind_is_a_dead_letter_at_once(hops: Any) -> None:
    task = plan_of(print).task
    with pytest.raises(HopLimitError, match=r"sent back to .* with hops .*, no count"):
        perform.passed_on({"hops": hops}, task, task)
