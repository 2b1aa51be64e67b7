"""A pipeline of steps: pages are fetched, and kept in a cache, so that none is fetched twice.

``python server.py`` serves the pages, in a terminal of its own. ``python pipelines.py run`` runs the pipeline,
``python pipelines.py feed http://127.0.0.1:8000/1 ...`` feeds it, ``python pipelines.py results`` prints what
comes out, until Ctrl-C. The queues are in the file downloader.db; ``SQSPIPES_BROKER=sqs://`` moves them to SQS.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

from sqspipes import Pipeline, Reject, Step

Instructions = dict[str, Any]

CACHE = Path("cache")


class Download(Step):
    """Fetches a page, unless it is in the cache."""

    workers = 8
    retries = 3
    backoff = 0.5

    def setup(self) -> None:
        """Make the folder of the cache."""
        CACHE.mkdir(exist_ok=True)

    def consume(self, instructions: Instructions) -> None:
        """Put the page, and where it is from, into the instructions."""
        kept = cached(instructions["url"])
        if kept.exists():
            self.produce({**instructions, "page": kept.read_text(encoding="utf-8"), "from": "cache"})
            return
        if not instructions["url"].startswith(("http://", "https://")):
            raise Reject(f"{instructions['url']!r} is no address of a page")
        with urllib.request.urlopen(instructions["url"], timeout=10) as answer:
            self.produce({**instructions, "page": answer.read().decode(), "from": "web"})

    def after_consume(self, instructions: Instructions) -> None:
        """Say so."""
        self.log("fetched %s", instructions["url"])

    def rollback(self, instructions: Instructions) -> None:
        """Hand on that there is no such page, in place of a dead letter."""
        self.produce({**instructions, "page": None, "from": "nowhere"})


class Cache(Step):
    """Keeps pages in files."""

    def consume(self, instructions: Instructions) -> list[Any]:
        """Write a page to the cache, in one step, so that none is ever half there."""
        page = instructions["page"]
        if page is not None:
            kept = cached(instructions["url"])
            part = kept.with_suffix(".part")
            part.write_text(page, encoding="utf-8")
            part.replace(kept)
        return [instructions["url"], instructions["from"], len(page or "")]


class Downloader(Pipeline):
    """Download, then cache; the results wait in a queue of their own."""

    name = "downloader"
    steps = (Download, Cache)
    output = "pages"


def cached(url: str) -> Path:
    """Return the file in which a page is kept."""
    return CACHE / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.txt"


def main(command: str, *urls: str) -> None:
    """Run, feed, or print the results as they come."""
    with Downloader(broker=os.environ.get("SQSPIPES_BROKER", "sqlite:///downloader.db")) as downloader:
        if command == "run":
            logging.basicConfig(level=logging.INFO, format="%(message)s")
            downloader.run()
        elif command == "feed":
            print(f"{downloader.feed_many({'url': url} for url in urls)} fed")
        elif command == "results":
            for result in downloader.results():
                print(json.dumps(result), flush=True)
        else:
            sys.exit(f"{command!r}: allowed are run, feed URL... and results")


if __name__ == "__main__":
    try:
        main(*(sys.argv[1:] or ["run"]))
    except KeyboardInterrupt:
        sys.exit(130)
