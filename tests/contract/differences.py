"""Where a broker differs from the port, test by test, with the reason. All else holds on every broker."""

from __future__ import annotations

from collections.abc import Mapping

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
    "test_broker_used_before_a_fork_works_in_the_child": {"memory": _IN_PROCESS},
}


def reasons(test: str) -> Mapping[str, str]:
    """Return the brokers that differ in a test, with the reason."""
    return DIFFERENCES.get(test, {})
