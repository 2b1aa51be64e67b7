"""Defaults and bounds that people meet, each named once: what options are if nobody sets them, and how far they go.

What the engine and the brokers set for themselves stands where it is used, with its reason.
"""

from __future__ import annotations

import threading

# Options of tasks and clients

#: Threads of a task in one process.
WORKERS, MOST_WORKERS = 1, 1_000

#: Levels of a task: two digits of a queue's name would take more, but each level is a queue that is polled.
PRIORITIES, MOST_PRIORITIES = 1, 16

#: Seconds of a lease. It is longer than a client's read timeout and shorter than the five minutes for which a queue
#: knows an id, so that what a crash leaves behind is handed out again in time for its second hand-off to be
#: recognised.
LEASE, SHORTEST_LEASE, LONGEST_LEASE = 60.0, 5.0, 240.0

#: Calls after the first one that failed: with the default backoff a message is given up after some four minutes.
RETRIES, MOST_RETRIES = 8, 1_000_000

#: Seconds before a retry, doubling from the first to the longest, half to full jitter.
FIRST_BACKOFF, LONGEST_BACKOFF = 1.0, 300.0

#: What an error of a task does: its message is called again, or the run ends and raises it.
ON_ERROR, ON_ERRORS = "retry", ("retry", "raise")

#: Whether a lower level waits until the higher ones are empty.
STRICT = False

#: Values of one call of a batch task.
MOST_BATCH = 1_000

#: Seconds for which a message may wait for a batch to fill.
BATCH_WAIT, LONGEST_BATCH_WAIT = 1.0, 60.0

#: Seconds for which a message may wait at one hop for a request to fill; the default is the broker's own.
LONGEST_LINGER = 10.0

#: Digits of the number of a rate, and the seconds of its units.
MOST_RATE_DIGITS = 12
RATE_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}

#: Seconds that running calls get at a stop: less than the 30 that Kubernetes and ECS leave a process after SIGTERM.
STOP_TIMEOUT = 25.0

#: The shortest time between two looks at the control word, in seconds.
SHORTEST_CONTROL_INTERVAL = 0.1

#: Seconds for which a method of the client waits for a broker that cannot be reached.
TIMEOUT = 30.0

#: The longest time that an option may ask for, in seconds: a year, where the machine can wait for so long at once.
LONGEST_SECONDS = min(365 * 86_400.0, threading.TIMEOUT_MAX / 2)

#: Processes of one run.
MOST_PROCESSES = 64

#: What carries messages to SQS: sockets of our own, or boto3.
TRANSPORTS = ("lean", "boto3")

# Names

#: Characters in a group or an id, as people write them.
LONGEST_NAME = 1_000

#: Characters of an SQS queue name, ``.fifo`` included.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-limits.html
LONGEST_QUEUE_NAME = 80

# What SQS sets, and every broker keeps

#: Seconds for which a queue knows a deduplication id.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-exactly-once-processing.html
DEDUPLICATION_SECONDS = 300.0

#: The largest message, in bytes, and the largest request.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
MESSAGE_BYTES = 1_048_576

#: Entries of a request.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
ENTRIES = 10

#: The longest poll, and the longest lease with all its extensions, in seconds.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
LONGEST_WAIT, LONGEST_VISIBILITY = 20.0, 43_200.0

# What a message can become

#: Receives after which the broker itself moves a message to the dead-letter queue: the net for messages that
#: kill their process. The engine's own retries never come near it.
MAX_RECEIVES = 50

#: What a dead letter adds to its message at most, in bytes. Every hand-off leaves this much free, so that any
#: message that was accepted once also fits as a dead letter.
LETTER_BYTES = 8_192

#: Times that outputs of one line may be sent back, to their own task or an earlier one.
MOST_HOPS = 1_000

#: Seconds that a request which is due waits at most for the one under way, gathering more: one that hangs must
#: not hold up the rest.
MOST_GATHERING_SECONDS = 0.2

#: Entries, and bytes of them, that may wait for one queue before whoever sends to it waits.
MOST_WAITING_ITEMS, MOST_WAITING_BYTES = 1_000, 16 * 1_048_576
