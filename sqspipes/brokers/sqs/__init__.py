"""SQS: the broker that pipes are made for; requests go by sockets of our own (``lean``) or by boto3."""

from __future__ import annotations

from sqspipes.brokers.sqs.broker import SqsBroker

__all__ = ["SqsBroker"]
