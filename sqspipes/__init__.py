"""Chains plain functions over AWS SQS FIFO queues, the way a shell chains programs with pipes.

One message's way, from left to right; each box is a module::

    put ─▶ Broker.send ─▶ queue ─▶ Intake ─▶ Lanes ─▶ Executor ─▶ Settler ─▶ Broker.send ─▶ next queue
                                   receive   order    call        send outputs, then acknowledge
                                      └────────── Leases: keep what is held invisible ───────────┘

``TaskClient`` is where everything begins.
"""

from __future__ import annotations

from sqspipes.brokers import open_broker
from sqspipes.brokers.base import Broker
from sqspipes.client import TaskClient
from sqspipes.errors import (
    BrokerClosedError,
    BrokerError,
    BrokerUnavailableError,
    CodecError,
    CredentialsError,
    DecodingError,
    EncodingError,
    NewerFormatError,
    OptionError,
    PutError,
    QueueMissingError,
    RunError,
    SignatureError,
    SqspipesError,
    TooLargeError,
)
from sqspipes.letters import DeadLetter
from sqspipes.results import EmptyTaskOutput, Output, TaskCallback
from sqspipes.runner.iteration import Results
from sqspipes.runner.plan import Summary
from sqspipes.runner.run import Run
from sqspipes.task import Task
from sqspipes.task_client import TaskClientError
from sqspipes.watching import LevelStatus, Status

__all__ = [
    "Broker",
    "BrokerClosedError",
    "BrokerError",
    "BrokerUnavailableError",
    "CodecError",
    "CredentialsError",
    "DeadLetter",
    "DecodingError",
    "EmptyTaskOutput",
    "EncodingError",
    "LevelStatus",
    "NewerFormatError",
    "OptionError",
    "Output",
    "PutError",
    "QueueMissingError",
    "Results",
    "Run",
    "RunError",
    "SignatureError",
    "SqspipesError",
    "Status",
    "Summary",
    "Task",
    "TaskCallback",
    "TaskClient",
    "TaskClientError",
    "TooLargeError",
    "open_broker",
]
