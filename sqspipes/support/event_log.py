"""The log's lines for events: the log is the first listener of each run."""

from __future__ import annotations

import logging

from sqspipes.events import (
    Called,
    Died,
    Event,
    HandedOn,
    LeaseLost,
    OutageBegan,
    OutageEnded,
    Retried,
    Stopped,
)
from sqspipes.summary import Counts
from sqspipes.support import lines

logger = lines.logger(__name__)


def logs_calls() -> bool:
    """Say whether the log has a line for each call."""
    return logger.isEnabledFor(logging.DEBUG)


def log(event: Event) -> None:
    """Log an event."""
    match event:
        case Called(_, task, id, seconds=seconds):
            logger.debug("%s %s done in %.3f s", task, id, seconds)
        case Retried(_, task, id, _, attempt, of, delay, error, exception):
            most = "no limit" if of is None else of
            logger.warning(
                "%s %s failed, attempt %d of %s, again in %.1f s: %s", task, id, attempt, most, delay, error
            )
            logger.debug("%s %s failed", task, id, exc_info=exception)
        case Died(_, task, id, _, attempts, error_type, error, exception):
            logger.error(
                "%s %s is a dead letter after %d attempts: %s: %s; see client.dead_letters(%r)",
                task, id, attempts, error_type, error, task, exc_info=exception,
            )  # fmt: skip
        case LeaseLost(_, task, id):
            logger.warning("%s %s: its lease was lost", task, id)
        case OutageBegan(broker, error):
            logger.warning("%s does not answer, trying again until it does: %s", broker, error)
        case OutageEnded(broker, seconds, requests):
            logger.warning("%s answers again after %.1f s and %d failed requests", broker, seconds, requests)
        case Stopped(domain, summary):
            logger.info("%s: %s, %s", domain, summary.reason, Counts.of(summary))
        case HandedOn():
            pass
