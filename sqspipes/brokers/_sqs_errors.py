"""What SQS refuses, in our words: by class and code, for whole requests and for single entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import (
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    MetadataRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError

from sqspipes.brokers.base import Answer, Kind
from sqspipes.errors import (
    BrokerError,
    BrokerUnavailableError,
    CredentialsError,
    QueueMissingError,
)

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
_MISSING = {"NonExistentQueue", "QueueDoesNotExist"}
_THROTTLED = {
    *(
        "RequestThrottled",
        "RequestThrottledException",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
    ),
    *(
        "TooManyRequests",
        "TooManyRequestsException",
        "SlowDown",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
    ),
}
_AGAIN = {
    *_THROTTLED,
    *("KmsThrottled", "PriorRequestNotComplete", "OverLimit"),
    # the service
    *("InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable"),
    *("ServiceUnavailableException", "RequestTimeout", "RequestTimeoutException"),
    # a name is free again 60 seconds after its queue was deleted; a purge takes up to 60 seconds
    *("QueueDeletedRecently", "PurgeQueueInProgress"),
    # this machine's clock
    *("RequestTimeTooSkewed", "RequestExpired"),
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException"}
_SIGNATURE = {"SignatureDoesNotMatch", "InvalidSignatureException"}
_RIGHTS = {
    *(
        "AccessDenied",
        "AccessDeniedException",
        "KmsAccessDenied",
        "NotAuthorized",
        "UnauthorizedOperation",
    ),
    *("OptInRequired", "InvalidSecurity"),
}
_CREDENTIALS = (
    _RIGHTS
    | _EXPIRED
    | {
        *(
            "AuthFailure",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "UnrecognizedClientException",
        ),
        *("IncompleteSignature", "IncompleteSignatureException", "InvalidToken"),
        *("MissingAuthenticationToken", "MissingAuthenticationTokenException"),
    }
)
_GONE = {"ReceiptHandleIsInvalid", "MessageNotInflight"}

_OTHER_KEYS = "Give other keys: aws_key= and aws_secret=, a profile with AWS_PROFILE, or session="

_NO_CREDENTIALS = (
    NoAuthTokenError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
# Credentials that could not be fetched now are an outage like any other.
_OUTAGE = (
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    MetadataRetrievalError,
    ResponseParserError,
)


def throttles(error: Exception) -> bool:
    """Say whether SQS refused a request because there were too many."""
    return isinstance(error, ClientError) and _short(_code(error)) in _THROTTLED


class RefusedError(BrokerError):
    """SQS refused a request with ``code``."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def translated(error: Exception, action: str, queue: str, *, refreshable: bool = False) -> BrokerError:
    """Return our error for one of botocore's; ``refreshable``: expired credentials will be replaced."""
    where = f"{action} on {queue}" if queue else action
    if isinstance(error, ClientError):
        return _of_code(error, action, queue, where, refreshable)
    if isinstance(error, _NO_CREDENTIALS):
        return CredentialsError(f"{where}: {error}")
    if isinstance(error, _OUTAGE):
        return BrokerUnavailableError(f"{where}: {error}")
    return BrokerError(f"{where}: {error}")


def tells_the_signature(error: Exception) -> bool:
    """Whether AWS's text repeats the signed request, which has the session token in it."""
    return isinstance(error, ClientError) and _short(_code(error)) in _SIGNATURE


def entry_answer(action: str, failed: Mapping[str, Any]) -> Answer:
    """Return the answer for an entry that SQS put under ``Failed``."""
    code = _short(str(failed.get("Code", "")))
    text = str(failed.get("Message", ""))
    reason = f"{code}: {text}"[:500]
    if action != "SendMessageBatch" and (code in _GONE or _is_old_handle(code, text)):
        return Answer(Kind.GONE, reason)
    ours = code in _AGAIN | _CREDENTIALS | _MISSING or code.lower().startswith("kms")
    if ours or not failed.get("SenderFault", False):
        return Answer(Kind.AGAIN, reason)
    return Answer(Kind.NEVER, reason)


def _is_old_handle(code: str, text: str) -> bool:
    # One code for an expired handle and for a lease beyond 12 hours: only the text tells them apart.
    return code == "InvalidParameterValue" and "parameter VisibilityTimeout" not in text


def _of_code(error: ClientError, action: str, queue: str, where: str, refreshable: bool) -> BrokerError:
    code = _short(_code(error))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"{code}: {_first_line(error).rstrip('.')}"
    if code in _MISSING:
        return QueueMissingError(
            queue,
            "it was deleted, or these credentials may not see it; create_queues() makes what is missing",
        )
    if code in _EXPIRED and refreshable:
        return BrokerUnavailableError(f"{where}: {said}")
    if code in _RIGHTS:
        return _refused(action, queue, said)
    # A machine that was suspended signs with the time of before: the text alone tells this from a wrong key.
    if code in _SIGNATURE and not _first_line(error).startswith("Signature "):
        return CredentialsError(f"{where}: the secret does not belong to the key: {said}. {_OTHER_KEYS}")
    if code in _CREDENTIALS:
        return CredentialsError(f"{where}: {said}. {_OTHER_KEYS}")
    if code in _AGAIN | _SIGNATURE or status >= 500 or status == 429:
        return BrokerUnavailableError(f"{where}: {said}")
    if status == 403:
        return _refused(action, queue, said)
    return RefusedError(f"{where}: {said}", code)


def _refused(action: str, queue: str, said: str) -> CredentialsError:
    remedy = "Allow it in the policy of this user or role"
    if action == "CreateQueue":
        remedy += ", or have the queues made by one who may and give create=False"
    return CredentialsError(f"no right to {_right(action)} on {queue or 'any queue'}: {said}. {remedy}")


def _short(code: str) -> str:
    """Return an error code without its old prefix: ``AWS.SimpleQueueService.NonExistentQueue``."""
    return code.rpartition(".")[2]


def _right(action: str) -> str:
    return f"sqs:{action.removesuffix('Batch')}"


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _first_line(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", "")).partition("\n")[0][:300]
