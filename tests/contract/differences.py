"""Where a broker differs from the port, test by test, with the reason. All else holds on every broker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

_MINISTACK_LEASE = (
    "ministack takes a handle whose visibility has ended as long as nobody received the message again; AWS "
    "refuses it on FIFO queues"
)
_IN_PROCESS = "each memory:// broker has queues of its own, which end with it"

#: Test, then broker, then reason.
DIFFERENCES: Mapping[str, Mapping[str, str]] = {
    "test_receipt_is_gone_when_its_lease_has_ended": {"sqs": _MINISTACK_LEASE},
    "test_lease_that_has_ended_cannot_be_extended": {"sqs": _MINISTACK_LEASE},
    "test_message_survives_a_close": {"memory": _IN_PROCESS},
    "test_second_broker_on_the_store_sees_the_message": {"memory": _IN_PROCESS},
    "test_what_one_broker_holds_no_other_one_gets": {"memory": _IN_PROCESS},
    "test_waiting_receive_sees_what_another_broker_sends": {"memory": _IN_PROCESS},
    "test_tags_survive_a_close": {"memory": _IN_PROCESS},
    "test_second_broker_on_the_store_sees_the_tags": {"memory": _IN_PROCESS},
    "test_broker_used_before_a_fork_works_in_the_child": {"memory": _IN_PROCESS},
}

#: What differs is the server, whichever way leads there.
_SAME_SERVER = {"sqs_boto3": "sqs"}

#: Where the model of the FIFO rules leaves a broker more than the rules do.
Leeway = Literal[
    "ended leases are good",
    "letters are groups of their own",
    "letters keep their count",
    "time is real",
]

_LETTERS_ALONE = "dead letters of one group do not wait for one another here, so that all can be listed"

#: Broker, then what the model leaves to it, then reason.
LEEWAY: Mapping[str, Mapping[Leeway, str]] = {
    "memory": {"letters are groups of their own": _LETTERS_ALONE},
    "sqlite": {"letters are groups of their own": _LETTERS_ALONE},
    "redis": {"letters are groups of their own": _LETTERS_ALONE},
    "sqs": {
        "ended leases are good": _MINISTACK_LEASE,
        "letters keep their count": (
            "ministack goes on counting receives in the dead-letter queue, the embedded brokers begin anew"
        ),
        "time is real": (
            "no clock can be given to the emulator: a lease that ends costs a second, the five minutes of "
            "a deduplication id never end, and all other leases are longer than any example"
        ),
    },
}


def leeway(broker: str) -> Mapping[Leeway, str]:
    """Return what the model leaves to a broker, with the reason."""
    return LEEWAY[_SAME_SERVER.get(broker, broker)]


def reasons(test: str) -> Mapping[str, str]:
    """Return the brokers that differ in a test, with the reason."""
    found = DIFFERENCES.get(test, {})
    return {**found, **{name: found[other] for name, other in _SAME_SERVER.items() if other in found}}
