"""The place of ``TaskClient`` in sqspipes 0.3, kept so that its imports go on working."""

from __future__ import annotations

from sqspipes.client import TaskClient
from sqspipes.errors import OptionError

#: The name of ``OptionError`` in sqspipes 0.3.
TaskClientError = OptionError

__all__ = ["TaskClient", "TaskClientError"]
