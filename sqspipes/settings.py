"""Settings: the options of a client, checked once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqspipes.defaults import SHORTEST_CONTROL_INTERVAL, TRANSPORTS
from sqspipes.errors import OptionError
from sqspipes.messages import queue_names
from sqspipes.operations.queues import NewQueues
from sqspipes.support import checks
from sqspipes.support.listeners import Listener, checked_listeners
from sqspipes.tasks import registration
from sqspipes.tasks.around import Around, checked_around


@dataclass(frozen=True, slots=True)
class Settings:
    """What a client was told, but its broker, tasks and output; it goes to other processes.

    ``task_options`` are those that tasks take from their client. ``account`` is what ``open_broker`` is given beside
    the URL. ``control_interval`` is ``"auto"`` for the broker's own, None for never.
    """

    domain: str
    ignore_none: bool
    json_default: Callable[[Any], Any] | None
    new_queues: NewQueues
    stop_timeout: float
    control_interval: float | Literal["auto"] | None
    task_options: Mapping[str, Any]
    account: Mapping[str, Any]
    around: tuple[Around, ...]
    listeners: tuple[Listener, ...]


def checked(given: Mapping[str, Any]) -> Settings:
    """Return the settings in the arguments of ``TaskClient``."""
    if given["fifo"] is not True:
        allowed = "True: order, and hand-offs that happen once, need FIFO queues"
        raise checks.refuse("fifo", given["fifo"], allowed)
    if (given["aws_key"] is None) != (given["aws_secret"] is None):
        missing = "aws_secret" if given["aws_secret"] is None else "aws_key"
        raise OptionError(f"{missing} is missing: aws_key and aws_secret go together")
    json_default = given["json_default"]
    if json_default is not None and not callable(json_default):
        raise checks.refuse("json_default", json_default, "a callable, as in json.dumps(default=)")
    domain = queue_names.checked_part("domain", given["domain"])
    account = ("aws_key", "aws_secret", "aws_region", "endpoint_url", "session")
    return Settings(
        domain=domain,
        ignore_none=checks.checked_bool("ignore_none", given["ignore_none"]),
        json_default=json_default,
        new_queues=NewQueues(
            create=checks.checked_bool("create", given["create"]),
            high_throughput=checks.checked_bool("high_throughput", given["high_throughput"]),
            attributes=_texts("queue_attributes", given["queue_attributes"]),
            tags={**_texts("tags", given["tags"]), "sqspipes:domain": domain},
        ),
        stop_timeout=checks.checked_seconds("stop_timeout", given["stop_timeout"]),
        control_interval=_control_interval(given["control_interval"]),
        task_options=registration.inherited(given),
        around=checked_around("around", given["around"]),
        listeners=checked_listeners("listeners", given["listeners"]),
        account={
            **{name: given[name] for name in account},
            "transport": checks.checked_choice("transport", given["transport"], TRANSPORTS),
        },
    )


def broker_url(broker: Any) -> str:
    """Return the URL of a broker that was given, or the environment's, or SQS."""
    if broker is None:
        return os.environ.get("SQSPIPES_BROKER") or "sqs://"
    if isinstance(broker, str):
        return broker
    raise checks.refuse("broker", broker, "a URL or a Broker")


def _control_interval(interval: Any) -> float | Literal["auto"] | None:
    if interval is None or interval == "auto":
        return interval  # type: ignore[no-any-return]
    if isinstance(interval, str):
        allowed = f"seconds, {SHORTEST_CONTROL_INTERVAL:g} or more, 'auto', or None for never"
        raise checks.refuse("control_interval", interval, allowed)
    return checks.checked_seconds("control_interval", interval, SHORTEST_CONTROL_INTERVAL)


def _texts(option: str, given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if isinstance(given, Mapping) and all(isinstance(part, str) for pair in given.items() for part in pair):
        return dict(given)
    raise checks.refuse(option, given, "a dict of texts")
