"""Lean: requests to SQS by sockets of our own, for a tenth of botocore's CPU time."""
