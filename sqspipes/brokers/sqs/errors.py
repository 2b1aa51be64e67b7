"""What SQS refuses, in our words: by class and code, for whole requests and for single entries."""

from __future__ import annotations

import re
import ssl
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
    SSLError,
    SSOError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError

from sqspipes.brokers.base import Answer, Kind
from sqspipes.brokers.rules import chain, lack_of_files, too_many_files
from sqspipes.brokers.sqs.transport.clock import SKEWED, offset
from sqspipes.brokers.sqs.transport.clock import told as clock_told
from sqspipes.errors import (
    BrokerError,
    BrokerUnavailableError,
    CredentialsError,
    QueueMissingError,
)
from sqspipes.support.urls import without_secrets

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
    *("KmsThrottled", "KmsThrottling", "KmsInternal", "KmsKMSInternal", "KmsDependencyTimeout"),
    *("KmsKeyUnavailable", "PriorRequestNotComplete", "OverLimit"),
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

#: Who gives credentials, as IAM writes it.
_TOKEN_SERVICES = {
    "sts:": (
        *("AssumeRole", "AssumeRoleWithWebIdentity", "AssumeRoleWithSAML"),
        *("GetSessionToken", "GetFederationToken"),
    ),
    "sso:": ("GetRoleCredentials",),
}
# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html#API_AssumeRoleWithWebIdentity_Errors
_TOKENS_AGAIN = {"IDPCommunicationError", "InvalidIdentityToken", "ExpiredToken"}
_TOKENS_NEVER = {
    *(
        "ValidationError",
        "ValidationException",
        "MalformedPolicyDocument",
        "MalformedPolicyDocumentException",
    ),
    *("PackedPolicyTooLarge", "PackedPolicyTooLargeException", "RegionDisabledException"),
    *("UnauthorizedException", "ForbiddenException", "InvalidRequestException", "ResourceNotFoundException"),
}

#: What the codes of KMS's refusals begin with.
_KMS = "Kms"
_NAMED = re.compile(r"perform:? ((?!sqs:)[a-z0-9-]+:[A-Za-z]+)")


#: Request Timeout, Too Early, Too Many Requests.
_PASSING = (408, 425, 429)
_GONE = {"ReceiptHandleIsInvalid", "MessageNotInflight"}

_OTHER_KEYS = (
    "Give other keys: aws_key= and aws_secret=, a profile with AWS_PROFILE, or session=. Keys that begin with ASIA "
    "are temporary and need their session token: AWS_SESSION_TOKEN or session="
)

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


def translated(
    error: Exception, action: str, queue: str, *, refreshable: bool = False, known: bool = True
) -> BrokerError:
    """Return our error for one of botocore's.

    ``refreshable``: expired credentials will be replaced; ``known``: the server answered before, with these settings.
    """
    where = f"{action} on {queue}" if queue else action
    wrong = _wrong_protocol(error)
    if wrong:
        text = without_secrets(f"{where}: {wrong}: {error}")
        return (BrokerUnavailableError if known else BrokerError)(text)
    if isinstance(error, ClientError):
        return _of_code(error, action, queue, where, refreshable)
    text = without_secrets(f"{where}: {error}")
    if lack_of_files(error):
        return too_many_files(where, error)
    if isinstance(error, _NO_CREDENTIALS):
        return CredentialsError(text)
    if isinstance(error, _OUTAGE):
        return BrokerUnavailableError(text)
    return BrokerError(text)


def _wrong_protocol(error: Exception) -> str:
    """Return what is wrong with the endpoint, where no later request will be answered better."""
    for each in chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return "the server's certificate is not trusted, see AWS_CA_BUNDLE"
        if isinstance(each, ssl.SSLError) and each.reason in _PLAIN:
            return "the server speaks no TLS: is its endpoint http:// in place of https://?"
        if any(sign in str(each) for sign in _TLS):
            return "the server wants TLS: is its endpoint https:// in place of http://?"
    return "TLS failed" if isinstance(error, SSLError) else ""


#: Why TLS fails when the server speaks something else, as OpenSSL says it.
_PLAIN = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")

#: What a server that wants TLS says to a plain request: an alert as it is, or shown; or what proxies say.
_TLS = ("\x15\x03", "\\x15\\x03", "plain HTTP request was sent to HTTPS", "HTTP request to an HTTPS server")


def unfetched(error: Exception, *, before: bool) -> BrokerError:
    """Return our error for credentials that could not be fetched; ``before``: there have been some already."""
    text = without_secrets(f"credentials: {type(error).__name__}: {error}")
    if isinstance(error, ClientError):
        return _of_token_service(error, before)
    if isinstance(error, TokenRetrievalError | FileNotFoundError | PermissionError) and not before:
        return CredentialsError(f"{text}. {_OTHER_KEYS}")
    if isinstance(error, _NO_CREDENTIALS) and not isinstance(error, TokenRetrievalError):
        return CredentialsError(f"{text}. {_OTHER_KEYS}")
    if isinstance(error, RuntimeError) and "expired" in str(error):
        text += " Is this machine's clock right?"
    return BrokerUnavailableError(text)


def _of_token_service(error: ClientError, before: bool) -> BrokerError:
    code, action = _short(_code(error)), error.operation_name
    service = next((name for name, actions in _TOKEN_SERVICES.items() if action in actions), "")
    action, said = service + action, _said(error, code)
    denied = code in _RIGHTS or _status(error) == 403
    if _passes(error, code) or code.removesuffix("Exception") in _TOKENS_AGAIN:
        return BrokerUnavailableError(f"credentials: {action}: {said}")
    if not denied and before and code not in _CREDENTIALS | _SIGNATURE | _TOKENS_NEVER:
        return BrokerUnavailableError(f"credentials: {action}: {said}")
    if denied and code not in _CREDENTIALS - _RIGHTS | _SIGNATURE:
        remedy = "Allow it in the trust policy of the role, or give other credentials"
        return CredentialsError(f"no right to {action}, which credentials come from: {said}. {remedy}")
    return CredentialsError(f"credentials: {action} was refused: {said}. {_OTHER_KEYS}")


def tells_a_secret(error: Exception) -> bool:
    """Whether a text has a password in a URL, or repeats the signed request, which has the session token in it."""
    repeats = isinstance(error, ClientError) and _short(_code(error)) in _SIGNATURE
    return repeats or without_secrets(str(error)) != str(error)


def entry_answer(action: str, failed: Mapping[str, Any]) -> Answer:
    """Return the answer for an entry that SQS put under ``Failed``."""
    code = _short(str(failed.get("Code", "")))
    text = str(failed.get("Message", ""))
    reason = f"{code}: {text}"[:500]
    if action != "SendMessageBatch" and (code in _GONE or _is_old_handle(code, text)):
        return Answer(Kind.GONE, reason)
    if code in _RIGHTS:
        reason = f"no right to {_right(action, code, text)}: {reason}"
    ours = code in _AGAIN | _CREDENTIALS | _MISSING or code.startswith(_KMS)
    if ours or not failed.get("SenderFault", False):
        return Answer(Kind.AGAIN, reason)
    return Answer(Kind.NEVER, reason)


def _is_old_handle(code: str, text: str) -> bool:
    # One code for an expired handle and for a lease beyond 12 hours: only the text tells them apart.
    return code == "InvalidParameterValue" and "parameter VisibilityTimeout" not in text


def _of_code(error: ClientError, action: str, queue: str, where: str, refreshable: bool) -> BrokerError:
    code = _short(_code(error))
    said = _said(error, code)
    if code in _MISSING:
        return QueueMissingError(
            queue,
            "it was deleted, or these credentials may not see it; create_queues() makes what is missing",
        )
    if code in _EXPIRED and refreshable:
        return BrokerUnavailableError(f"{where}: {said}")
    if code in _RIGHTS:
        return _refused(error, action, queue, said)
    if code in _SIGNATURE and not _passes(error, code):
        return CredentialsError(f"{where}: the secret does not belong to the key: {said}. {_OTHER_KEYS}")
    if code in _CREDENTIALS:
        return CredentialsError(f"{where}: {said}. {_OTHER_KEYS}")
    if _passes(error, code):
        return BrokerUnavailableError(f"{where}: {said}")
    if code.startswith(_KMS):
        return RefusedError(f"{where}: the KMS key of the queue cannot be used: {said}", code)
    if _status(error) == 403:
        return _refused(error, action, queue, said)
    return RefusedError(f"{where}: {said}", code)


def _passes(error: ClientError, code: str) -> bool:
    """Say whether the same request may be accepted later."""
    if code in _SIGNATURE:
        # A machine that was suspended signs with the time of before: the text alone tells this from a wrong key.
        return _first_line(error).startswith("Signature ")
    return code in _AGAIN or _status(error) >= 500 or _status(error) in _PASSING


def _said(error: ClientError, code: str) -> str:
    """Return what AWS said, and how wrong this machine's clock is where that is the reason."""
    said, ahead = f"{code}: {_first_line(error).rstrip('.')}", offset(error)
    if ahead is None or abs(ahead) < SKEWED or (code in _SIGNATURE and not _passes(error, code)):
        return said
    return f"{clock_told(ahead)}: {said}"


def _refused(error: ClientError, action: str, queue: str, said: str) -> CredentialsError:
    right = _right(action, _short(_code(error)), _first_line(error))
    remedy = "Allow it in the policy of this user or role"
    if action == "CreateQueue":
        remedy += ", or have the queues made by one who may and give create=False"
    if right.startswith("kms:"):
        return CredentialsError(
            f"no right to {right} with the key that encrypts {queue or 'a queue'}: {said}. {remedy}, "
            "and in the policy of the key"
        )
    return CredentialsError(f"no right to {right} on {queue or 'any queue'}: {said}. {remedy}")


def _short(code: str) -> str:
    """Return an error code without its old prefix: ``AWS.SimpleQueueService.NonExistentQueue``.

    One that KMS said keeps its own: ``KMS.AccessDeniedException`` is ``KmsAccessDenied``, as SQS says it today.
    """
    before, dot, short = code.rpartition(".")
    return f"{_KMS}{short.removesuffix('Exception')}" if dot and before.lower().endswith("kms") else short


def _right(action: str, code: str, text: str) -> str:
    """Return the right that is missing for an action; another service's is in AWS's text alone."""
    named = _NAMED.search(text)
    if named:
        return named[1]
    if code.startswith(_KMS):
        return "kms:GenerateDataKey and kms:Decrypt" if action.startswith("SendMessage") else "kms:Decrypt"
    return f"sqs:{action.removesuffix('Batch')}"


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _first_line(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", "")).partition("\n")[0][:300]
