"""Answers: the gate through which every answer of SQS comes in, by either transport.

Proxies, portals and other programs answer in SQS's place, and connections end in the middle of an answer. What SQS
would not say is refused here, as ``ResponseParserError``: an outage. So code behind the gate reads answers as they
are documented, and nobody takes a page for an empty queue.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError
from botocore.parsers import ResponseParserError

#: The members of each action's answer. An answer may have others too, but not others alone.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_Operations.html
_MEMBERS: dict[str, frozenset[str]] = {
    "ChangeMessageVisibilityBatch": frozenset({"Successful", "Failed", "ResponseMetadata"}),
    "CreateQueue": frozenset({"QueueUrl", "ResponseMetadata"}),
    "DeleteMessageBatch": frozenset({"Successful", "Failed", "ResponseMetadata"}),
    "GetQueueAttributes": frozenset({"Attributes", "ResponseMetadata"}),
    "GetQueueUrl": frozenset({"QueueUrl", "ResponseMetadata"}),
    "ListQueueTags": frozenset({"Tags", "ResponseMetadata"}),
    "ListQueues": frozenset({"QueueUrls", "NextToken", "ResponseMetadata"}),
    "ReceiveMessage": frozenset({"Messages", "ResponseMetadata"}),
    "SendMessageBatch": frozenset({"Successful", "Failed", "ResponseMetadata"}),
}
_NO_MEMBERS = frozenset({"ResponseMetadata"})

_decoder = json.JSONDecoder()

#: Bytes of an answer that an error shows.
_SHOWN = 100

#: What may stand before a secret in a page that repeats the request.
_SECRET = re.compile(rb"token|secret|signature|credential|passw|authori[sz]ation|AKIA|ASIA", re.IGNORECASE)

#: An error code with all that may stand before and after it.
_CODE = re.compile(r"[\w.:#/-]{1,300}", re.ASCII)
_QUERY_CODE = re.compile(r"[\w.:#/-]{1,300};[^;]*", re.ASCII)

#: Digits of the length of an answer that may be one.
_LONGEST_LENGTH = 15

#: A count, and milliseconds since 1970 up to the year 9999.
_COUNT = re.compile(r"[0-9]{1,15}", re.ASCII)
_LATEST = 253_402_300_799_999

_DICT = frozenset({dict})

#: Digits of a number that is certainly below it.
_SHORT = 15

#: What SQS tells of every queue when it is asked.
_ALWAYS = {
    "QueueArn",
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible",
}
_COUNTED = {*_ALWAYS, "MaximumMessageSize"} - {"QueueArn"}


def result_of(action: str, params: Mapping[str, Any], status: int, body: bytes) -> dict[str, Any]:
    """Return what is in an answer without an error.

    All of it that is read has its type and belongs to what was asked; nulls are left out, as botocore does.
    """
    members = _MEMBERS.get(action, _NO_MEMBERS)
    if members is _NO_MEMBERS and not body and status in (200, 204):
        return {}
    if status != 200:
        raise _not_of_sqs(status, body, "this status is not")
    result = _object(status, body)
    if result and members.isdisjoint(result):
        raise _not_of_sqs(status, body, f"{action} has other members")
    check = _CHECKS.get(action)
    if check is not None:
        try:
            check(params, result)
        except _UnfitError as error:
            raise ResponseParserError(f"the answer is not SQS's: {error}") from None
    return result


def check_error(status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Refuse an error that has no code of SQS."""
    error = _object(status, body) if body else {}
    code, text = error.get("__type"), error.get("message", error.get("Message"))
    coded = _QUERY_CODE.fullmatch(headers.get("x-amzn-query-error", ""))
    if not coded and not (isinstance(code, str) and _CODE.fullmatch(code)):
        raise _not_of_sqs(status, body, "an error of SQS has a code")
    if not isinstance(code, str | None) or not isinstance(text, str | None) or status < 400:
        raise _not_of_sqs(status, body, "an error of SQS has a code and a text")


class AnswerGate:
    """Stands between boto3 clients and what they read."""

    def __init__(self) -> None:
        self._here = threading.local()

    def install(self, client: Any) -> None:
        """Have each answer to a client looked at before botocore reads it."""
        client.meta.events.register("before-parse.sqs", self._look)

    def call(self, client: Any, action: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Call SQS; whatever botocore raises while it reads an answer is the answer's fault."""
        here = self._here
        here.params, here.answered, here.result = params, False, None
        try:
            # The name is looked up in botocore's own cache.
            parsed: dict[str, Any] = getattr(client, xform_name(action))(**params)
        except (BotoCoreError, ClientError, ResponseParserError):
            raise
        except Exception as error:
            if not here.answered:
                raise
            raise ResponseParserError(f"the answer is not SQS's: {type(error).__name__}") from error
        # botocore takes a text for a list of its letters; what was looked at is what is given.
        return parsed if here.result is None else here.result

    def _look(self, response_dict: dict[str, Any], operation_model: Any, **_: Any) -> None:
        here, action = self._here, operation_model.name
        here.answered = True
        status, headers, body = (response_dict[name] for name in ("status_code", "headers", "body"))
        _check_length(headers, body)
        if status < 300:
            here.result = result_of(action, getattr(here, "params", {}), status, body)
        else:
            check_error(status, headers, body)


def _check_length(headers: Mapping[str, str], body: bytes) -> None:
    """Refuse what ended in the middle: some versions of what boto3 uses take it for an empty answer."""
    length = headers.get("content-length", "")
    if not length.isdecimal() or "content-encoding" in headers:
        return
    if len(length) > _LONGEST_LENGTH or len(body) < int(length):
        raise ConnectionClosedError(endpoint_url=f"SQS ({len(body)} of {length[:20]} bytes came)")


def _object(status: int, body: bytes) -> dict[str, Any]:
    try:
        # What is null is not there, as in botocore's parser.
        result = (
            json.loads(body.decode(), object_hook=_without_nulls)
            if b"null" in body
            else _loaded(body.decode())
        )
    except (ValueError, RecursionError):
        raise _not_of_sqs(status, body, "it is not JSON") from None
    if not isinstance(result, dict):
        raise _not_of_sqs(status, body, f"it is a {type(result).__name__}")
    return result


def _loaded(text: str) -> Any:
    try:
        loaded, end = _decoder.raw_decode(text)
    except ValueError:
        end = -1
    # The slower way takes blanks around it, and tells errors.
    return loaded if end == len(text) else _decoder.decode(text)


def _without_nulls(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value is not None}


def _not_of_sqs(status: int, body: bytes, reason: str) -> ResponseParserError:
    return ResponseParserError(f"an answer with status {status} is not SQS's, {reason}: {_shown(body)}")


def _shown(body: bytes) -> str:
    """Return the begin of a page, escaped; nothing of JSON, which may be messages, or beside a secret."""
    begin = body[:_SHOWN].partition(b"{")[0].strip()
    if not begin or begin[:1] in b'["' or _SECRET.search(begin):
        return f"{len(body):,} bytes"
    return f"{len(body):,} bytes, {begin.decode(errors='replace')!a}"


# The members that are read, action by action.


class _UnfitError(Exception):
    """An answer has a part that SQS would not have given; the text says which."""


def _demand(fits: bool, told: str) -> None:
    if not fits:
        raise _UnfitError(told)


def _objects(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a list of objects; one that is missing is empty."""
    found = answer.get(name, [])
    if not (type(found) is list and _DICT.issuperset(map(type, found))):
        raise _UnfitError(f"{name} is no list")
    return found


def _texts(found: Any, name: str) -> dict[str, str]:
    _demand(
        isinstance(found, dict) and all(isinstance(text, str) for text in found.values()),
        f"{name} are no texts",
    )
    return dict(found)


def _text(found: Mapping[str, Any], name: str, *, may_be_empty: bool = False) -> str:
    text = found.get(name)
    _demand(isinstance(text, str) and (may_be_empty or bool(text)), f"there is no {name}")
    return str(text)


def _count(found: Mapping[str, str], name: str, most: int) -> None:
    text = found.get(name, "0")
    _demand(bool(_COUNT.fullmatch(text)) and int(text) <= most, f"{name} is no number")


def _check_batch(params: Mapping[str, Any], answer: dict[str, Any]) -> None:
    """Each entry is answered once, or not at all: then it was not done."""
    failed = _objects(answer, "Failed") if "Failed" in answer else []
    open_ids = {entry["Id"] for entry in params.get("Entries", ())}
    for entry in (*_objects(answer, "Successful"), *failed):
        id = entry.get("Id")
        if type(id) is not str or id not in open_ids:
            _text(entry, "Id")
            raise _UnfitError("it has an Id that was not asked for, or one twice")
        open_ids.remove(id)
    for entry in failed:
        _text(entry, "Code")
        _text({"Message": "", **entry}, "Message", may_be_empty=True)
        _demand(isinstance(entry.get("SenderFault", False), bool), "SenderFault is neither true nor false")


def _check_messages(params: Mapping[str, Any], answer: dict[str, Any]) -> None:
    messages = _objects(answer, "Messages")
    _demand(len(messages) <= params.get("MaxNumberOfMessages", 1), "it has more messages than were asked for")
    names = params.get("MessageSystemAttributeNames", ())
    counted = [name for name in names if name != "MessageGroupId"]
    texts = [name for name in names if name == "MessageGroupId"]
    for message in messages:
        if not _is_usual(message, texts, counted):
            _check_message(message, names)
    _demand(len({message["MessageId"] for message in messages}) == len(messages), "it has a message twice")


def _is_usual(message: Mapping[str, Any], texts: Collection[str], counted: Collection[str]) -> bool:
    """Say at a glance whether a message is as SQS gives nearly all of them; any other is looked at part by part."""
    try:
        receipt, id, attributes = message["ReceiptHandle"], message["MessageId"], message["Attributes"]
        if not (type(receipt) is type(id) is type(message["Body"]) is str and receipt and id):
            return False
        if type(attributes) is not dict or len(attributes) != len(texts) + len(counted):
            return False
        for name in counted:
            text = attributes[name]
            # What is decimal and not empty; that of other alphabets, too, is not what is usual.
            if not (type(text) is str and text.isdecimal() and text.isascii() and len(text) < _SHORT):
                return False
        for name in texts:
            text = attributes[name]
            if not (type(text) is str and text):
                return False
    except KeyError:
        return False
    return True


def _check_message(message: Mapping[str, Any], names: Collection[str]) -> None:
    for name in ("ReceiptHandle", "MessageId"):
        _text(message, name)
    _text(message, "Body", may_be_empty=True)
    attributes = _texts(message.get("Attributes", {}), "Attributes")
    for name in names:
        _text(attributes, name)
    _count(attributes, "ApproximateReceiveCount", _LATEST)
    _count(attributes, "SentTimestamp", _LATEST)


def _check_url(params: Mapping[str, Any], answer: dict[str, Any]) -> None:
    url, queue = _text(answer, "QueueUrl"), params.get("QueueName", "")
    _demand("://" in url and url.rstrip("/").endswith(f"/{queue}"), "QueueUrl is not that of this queue")


def _check_attributes(params: Mapping[str, Any], answer: dict[str, Any]) -> None:
    attributes = _texts(answer.get("Attributes"), "Attributes")
    for name in _ALWAYS.intersection(params.get("AttributeNames", ())):
        _text(attributes, name)
    for name in _COUNTED:
        _count(attributes, name, _LATEST)


def _check_names(params: Mapping[str, Any], answer: dict[str, Any]) -> None:
    urls = answer.get("QueueUrls", [])
    _demand(
        isinstance(urls, list) and all(isinstance(url, str) for url in urls), "QueueUrls is no list of texts"
    )
    if "NextToken" in answer:
        _demand(isinstance(answer["NextToken"], str), "NextToken is no text")


def _check_tags(params: Mapping[str, Any], answer: dict[str, Any]) -> None:
    _texts(answer.get("Tags", {}), "Tags")


_CHECKS: dict[str, Callable[[Mapping[str, Any], dict[str, Any]], None]] = {
    "ChangeMessageVisibilityBatch": _check_batch,
    "CreateQueue": _check_url,
    "DeleteMessageBatch": _check_batch,
    "GetQueueAttributes": _check_attributes,
    "GetQueueUrl": _check_url,
    "ListQueueTags": _check_tags,
    "ListQueues": _check_names,
    "ReceiveMessage": _check_messages,
    "SendMessageBatch": _check_batch,
}
