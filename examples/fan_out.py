"""A page into its links: one message in, many out; what fails is kept, mended and sent again.

``python examples/fan_out.py``. A generator sends each value it yields as a message of its own. A link that
cannot be checked becomes a dead letter with its reason; after the fix ``redrive`` sends it to its task again.
The queues are in the file fan_out.db; ``SQSPIPES_BROKER=sqs://`` moves them to SQS.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from urllib.parse import urlsplit

from sqspipes import TaskClient

PAGE = """<h1>Readings</h1><a href="https://example.org/a">A</a> <a href="https://example.org/b">B</a>
<a href="mailto:someone@example.org">Write</a> <a href="https://example.com/c">C</a>"""


class Links(HTMLParser):
    """Collects the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the link of an anchor."""
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def links(page: str) -> Iterator[str]:
    """Yield each link of a page; the page is acknowledged after the last."""
    parser = Links()
    parser.feed(page)
    yield from parser.found


def host(link: str) -> str:
    """Return a link's host; it did not expect a link without one."""
    found = urlsplit(link).hostname
    if found is None:
        raise ValueError(f"{link} has no host")
    return found


def mended_host(link: str) -> str:
    """Return a link's host, or what follows the @."""
    return urlsplit(link).hostname or link.rpartition("@")[2]


def run(client: TaskClient, check: Callable[[str], str]) -> None:
    """Run the pipe until it is empty, with this version of its second task."""
    client.register_tasks([links, {"method": check, "name": "check", "workers": 4, "retries": 0}])
    for found in client.run(iterate=True, drain=True):
        print(f"  {found}")


def main() -> None:
    """Put a page, look at what failed, mend it, send it again."""
    with TaskClient("fan_out", broker=os.environ.get("SQSPIPES_BROKER", "sqlite:///fan_out.db")) as client:
        client.register_tasks([links, {"method": host, "name": "check"}])
        client.put(PAGE)
        print("hosts:")
        run(client, host)
        print("dead letters:")
        for letter in client.dead_letters("check"):
            print(f"  {letter.value}: {letter.error_type}: {letter.error}")
        print(f"after the fix, {client.redrive('check')} sent again:")
        run(client, mended_host)


if __name__ == "__main__":
    main()
