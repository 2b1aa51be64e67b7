"""The sqspipes before this one, 0.3.3: FIFO queues with a single group; deletes messages before it runs them."""

from __future__ import annotations

import collections
import collections.abc
import sys
import threading

import lines
import work

# It was written for a Python that had this name in another place.
collections.Iterable = collections.abc.Iterable

from sqspipes import EmptyTaskOutput, TaskClient  # noqa: E402

client = TaskClient(domain="words", aws_key="key", aws_secret="secret", aws_region="us-west-2")
client.register_tasks(
    [
        {"method": EmptyTaskOutput, "name": "source", "workers": 1},
        {"method": work.vowels, "name": "vowels", "workers": 16},
        {"method": work.count, "name": "count", "workers": 16},
    ]
)


def counted():
    """Run the last task."""
    for word, _ in client.run("count", iterate=True):
        lines.write(word)


def put(messages):
    """Send words as the source does: its own clock would take a second for each handful."""
    source = client.get_task_by_name("source")
    source.setup()
    for word in work.words(messages):
        source._on_task_finish({"priority": 0}, word)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        client.get_task_by_name("vowels").setup()
        threading.Thread(target=counted, name="count").start()
        for _ in client.run("vowels", iterate=True):
            pass
    else:
        put(int(sys.argv[1]))
