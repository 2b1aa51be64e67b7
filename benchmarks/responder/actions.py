"""Actions: what each call of SQS does to the queues, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.responder.queues import Queue

Params = Mapping[str, Any]

_encode = json.JSONEncoder(separators=(",", ":")).encode
_BAD_HANDLE = {"SenderFault": True, "Code": "ReceiptHandleIsInvalid", "Message": "not in flight"}


class ServiceError(Exception):
    """A request is refused with a code and a status."""

    def __init__(self, code: str, old_code: str, status: int = 400) -> None:
        super().__init__(code)
        self.code, self.old_code, self.status = code, old_code, status


class Actions:
    """All queues, and the calls that change them; ReceiveMessage is the server's, as it may wait."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.queues: dict[str, Queue] = {}
        self._calls: Mapping[str, Callable[[Params, float], str]] = {
            "CreateQueue": self._create_queue,
            "GetQueueUrl": self._get_queue_url,
            "ListQueues": self._list_queues,
            "GetQueueAttributes": self._get_queue_attributes,
            "SetQueueAttributes": self._set_queue_attributes,
            "TagQueue": self._tag_queue,
            "ListQueueTags": self._list_queue_tags,
            "PurgeQueue": self._purge_queue,
            "DeleteQueue": self._delete_queue,
            "SendMessage": self._send_message,
            "SendMessageBatch": self._send_message_batch,
            "DeleteMessage": self._delete_message,
            "DeleteMessageBatch": self._delete_message_batch,
            "ChangeMessageVisibility": self._change_message_visibility,
            "ChangeMessageVisibilityBatch": self._change_message_visibility_batch,
        }

    def queue(self, params: Params) -> Queue:
        """Return the queue that a request is for."""
        name = params.get("QueueName") or str(params.get("QueueUrl", "")).rpartition("/")[2]
        try:
            return self.queues[name]
        except KeyError:
            raise ServiceError("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue") from None

    def answer(self, action: str, params: Params, now: float) -> str:
        """Do what a request asks for; return the answer's body."""
        call = self._calls.get(action)
        if call is None:
            raise ServiceError("UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation")
        return call(params, now)

    def _address(self, name: str) -> str:
        return f"{self._url}/000000000000/{name}"

    def _create_queue(self, params: Params, now: float) -> str:
        name = params["QueueName"]
        self.queues.setdefault(name, Queue(name, params.get("Attributes") or {}))
        return _encode({"QueueUrl": self._address(name)})

    def _get_queue_url(self, params: Params, now: float) -> str:
        return _encode({"QueueUrl": self._address(self.queue(params).name)})

    def _list_queues(self, params: Params, now: float) -> str:
        prefix = params.get("QueueNamePrefix") or ""
        return _encode(
            {"QueueUrls": [self._address(name) for name in self.queues if name.startswith(prefix)]}
        )

    def _get_queue_attributes(self, params: Params, now: float) -> str:
        queue = self.queue(params)
        waiting, flying = queue.depth()
        known = {
            "VisibilityTimeout": "30",
            "MaximumMessageSize": "1048576",
            **queue.attributes,
            "QueueArn": f"arn:aws:sqs:us-east-1:000000000000:{queue.name}",
            "ApproximateNumberOfMessages": str(waiting),
            "ApproximateNumberOfMessagesNotVisible": str(flying),
            "ApproximateNumberOfMessagesDelayed": "0",
        }
        names = params.get("AttributeNames") or []
        return _encode({"Attributes": {key: known[key] for key in known if "All" in names or key in names}})

    def _set_queue_attributes(self, params: Params, now: float) -> str:
        self.queue(params).attributes.update(params.get("Attributes") or {})
        return "{}"

    def _tag_queue(self, params: Params, now: float) -> str:
        self.queue(params)
        return "{}"

    def _list_queue_tags(self, params: Params, now: float) -> str:
        self.queue(params)
        return _encode({"Tags": {}})

    def _purge_queue(self, params: Params, now: float) -> str:
        self.queue(params).purge()
        return "{}"

    def _delete_queue(self, params: Params, now: float) -> str:
        del self.queues[self.queue(params).name]
        return "{}"

    def _send_message(self, params: Params, now: float) -> str:
        return _encode({"MessageId": self.queue(params).send(params, now)})

    def _send_message_batch(self, params: Params, now: float) -> str:
        send = self.queue(params).send
        done = [{"Id": entry["Id"], "MessageId": send(entry, now)} for entry in params["Entries"]]
        return _encode({"Successful": done})

    def _delete_message(self, params: Params, now: float) -> str:
        self.queue(params).delete(params["ReceiptHandle"])
        return "{}"

    def _delete_message_batch(self, params: Params, now: float) -> str:
        delete = self.queue(params).delete
        return _each(params["Entries"], lambda entry: delete(entry["ReceiptHandle"]))

    def _change_message_visibility(self, params: Params, now: float) -> str:
        self.queue(params).change(params["ReceiptHandle"], params["VisibilityTimeout"], now)
        return "{}"

    def _change_message_visibility_batch(self, params: Params, now: float) -> str:
        change = self.queue(params).change
        return _each(
            params["Entries"],
            lambda entry: change(entry["ReceiptHandle"], entry["VisibilityTimeout"], now),
        )


def _each(entries: Sequence[Params], act: Callable[[Params], bool]) -> str:
    done, failed = [], []
    for entry in entries:
        if act(entry):
            done.append({"Id": entry["Id"]})
        else:
            failed.append({"Id": entry["Id"], **_BAD_HANDLE})
    return _encode({"Successful": done, "Failed": failed})
