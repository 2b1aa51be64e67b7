"""Switch: which engine a run takes, as long as there are two. Private, and gone with ``runner``."""

from __future__ import annotations

import os

from sqspipes.brokers.base import Broker
from sqspipes.runner.run import Run
from sqspipes.tasks.plan import RunPlan

#: Set to ``engine``, this environment variable has runs take the new engine.
VARIABLE = "SQSPIPES_PRIVATE_ENGINE"


def open_run(broker: Broker, plan: RunPlan, domain: str) -> Run:
    """Return a run, not yet started."""
    if os.environ.get(VARIABLE) != "engine":
        return Run(broker, plan, domain)
    from sqspipes.engine.run import (
        EngineRun,
    )  # a program that runs the old engine need not import the new one

    return EngineRun(broker, plan, domain)
