"""Every error of sqspipes, in one tree.

::

    SqspipesError
    ├── OptionError (also ValueError)      an option, a task or an argument is not allowed
    │   └── SignatureError                 a function cannot take what it will be given
    ├── CodecError (also ValueError)       a value or a body cannot be carried
    │   ├── EncodingError                  a value is not JSON; the path says where
    │   ├── TooLargeError                  a message is larger than its queue takes
    │   ├── DecodingError                  a body is not a message
    │   └── NewerFormatError               a body was written by a newer sqspipes
    ├── BrokerError                        the broker said no
    │   ├── BrokerUnavailableError         it cannot be reached now; trying again is safe
    │   ├── QueueMissingError              a queue is not there
    │   ├── CredentialsError               no credentials, wrong ones, or no right to do this
    │   └── BrokerClosedError              the broker was closed
    ├── HopLimitError                      an output was sent back too often
    ├── MissingKeyError (also KeyError)    a step asked for a key that its instructions do not have
    ├── NoMessageError                     no message is being handled in this thread
    ├── PutError                           put_many stopped at a value
    └── RunError                           a part of a run died
"""

from __future__ import annotations


class SqspipesError(Exception):
    """The root of all errors that sqspipes raises."""


class OptionError(SqspipesError, ValueError):
    """An option, a task or an argument is not allowed; the text names it, its value and what is allowed."""


class SignatureError(OptionError):
    """A task's function cannot take the arguments that the pipe will give it."""


class CodecError(SqspipesError, ValueError):
    """A value or a body cannot be carried by a queue."""


class EncodingError(CodecError):
    """A value is not JSON; the text has the path of the first part that is not."""


class TooLargeError(CodecError):
    """A message is larger than its queue takes."""


class DecodingError(CodecError):
    """A body is not a message: not JSON, or this format with a field missing or of a wrong type."""


class NewerFormatError(CodecError):
    """A body was written by a newer sqspipes; it is given back for a process that can read it."""


class BrokerError(SqspipesError):
    """The broker refused a request, and would refuse it again."""


class BrokerUnavailableError(BrokerError):
    """The broker cannot be reached or cannot answer now; the same request again is safe.

    ``id`` is the id of the message that was to be put, or None.
    """

    def __init__(self, message: str, *, id: str | None = None) -> None:
        super().__init__(message)
        self.id = id


class QueueMissingError(BrokerError):
    """A queue is not there; ``queue`` is its full name."""

    def __init__(self, queue: str, hint: str = "create_queues() makes what is missing") -> None:
        super().__init__(f"queue {queue} does not exist: {hint}")
        self.queue = queue


class CredentialsError(BrokerError):
    """There are no credentials, or they are wrong, expired or lack a right."""


class BrokerClosedError(BrokerError):
    """The broker was closed while it was in use."""


class HopLimitError(SqspipesError):
    """An output was sent back to its own or an earlier task too often: a loop without an end."""


class MissingKeyError(SqspipesError, KeyError):
    """A step asked for a key that its instructions do not have; ``key`` is that key."""

    def __init__(self, message: str, key: object = None) -> None:
        super().__init__(message, key)
        self.key = key

    def __str__(self) -> str:
        return str(self.args[0])


class NoMessageError(SqspipesError):
    """``current_message`` was asked where no task is being called for a message."""


class PutError(SqspipesError):
    """``put_many`` stopped: ``index`` is the place of the first value that is not in the queue.

    ``sent`` is how many are in it, some of them perhaps behind that one.
    """

    def __init__(self, message: str, *, index: int, sent: int) -> None:
        super().__init__(message)
        self.index = index
        self.sent = sent


class RunError(SqspipesError):
    """A part of a run died; ``part`` is its name and ``__cause__`` what it raised."""

    def __init__(self, message: str, *, part: str) -> None:
        super().__init__(message)
        self.part = part
