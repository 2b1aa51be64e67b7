"""Chains plain functions over AWS SQS FIFO queues, the way a shell chains programs with pipes.

One message's way, from left to right; each box is a module::

    put ─▶ Broker.send ─▶ queue ─▶ Admission ─▶ Lanes ─▶ Crew or threads ─▶ Settling ─▶ next queue
                                   receive      order    call               send outputs, then acknowledge
                                      └────────── Leases: keep what is held invisible ───────────┘

``TaskClient`` is where everything begins.
"""

from __future__ import annotations

from sqspipes import _starting as _starting  # the first of all imports
from sqspipes.brokers import open_broker
from sqspipes.brokers.base import Broker
from sqspipes.client import TaskClient
from sqspipes.engine.iteration import Results
from sqspipes.engine.run import Run
from sqspipes.engine.signals import foreground, undo_in_forks
from sqspipes.errors import (
    BrokerClosedError,
    BrokerError,
    BrokerUnavailableError,
    CodecError,
    CredentialsError,
    DecodingError,
    EncodingError,
    HopLimitError,
    MissingKeyError,
    NewerFormatError,
    NoMessageError,
    OptionError,
    PutError,
    QueueMissingError,
    RunError,
    SignatureError,
    SqspipesError,
    TooLargeError,
)
from sqspipes.operations.dead_letters import DeadLetter, DeadLetters
from sqspipes.operations.status import LevelStatus, Status
from sqspipes.pipeline import Pipeline
from sqspipes.processes.fleet import Fleet
from sqspipes.summary import Summary
from sqspipes.support.checks import did_you_mean
from sqspipes.support.lines import LogFormatter, indented, one_line, printable
from sqspipes.task_client import TaskClientError
from sqspipes.tasks.current import CurrentMessage, current_message
from sqspipes.tasks.results import BatchFailure, EmptyTaskOutput, Output, Reject, Retry, TaskCallback
from sqspipes.tasks.step import Step
from sqspipes.tasks.task import Task

__all__ = [
    "BatchFailure",
    "Broker",
    "BrokerClosedError",
    "BrokerError",
    "BrokerUnavailableError",
    "CodecError",
    "CredentialsError",
    "CurrentMessage",
    "DeadLetter",
    "DeadLetters",
    "DecodingError",
    "EmptyTaskOutput",
    "EncodingError",
    "Fleet",
    "HopLimitError",
    "LevelStatus",
    "LogFormatter",
    "MissingKeyError",
    "NewerFormatError",
    "NoMessageError",
    "OptionError",
    "Output",
    "Pipeline",
    "PutError",
    "QueueMissingError",
    "Reject",
    "Results",
    "Retry",
    "Run",
    "RunError",
    "SignatureError",
    "SqspipesError",
    "Status",
    "Step",
    "Summary",
    "Task",
    "TaskCallback",
    "TaskClient",
    "TaskClientError",
    "TooLargeError",
    "current_message",
    "did_you_mean",
    "foreground",
    "indented",
    "one_line",
    "open_broker",
    "printable",
    "undo_in_forks",
]
