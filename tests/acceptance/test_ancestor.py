"""The README script of sqspipes 0.3.3, to the letter, in three processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.support import PROGRAMS, ROOT, eventually
from tests.servers import Ministack

LINES = 20


@contextmanager
def script(*words: str, environment: dict[str, str], output: Path) -> Iterator[None]:
    """Run the script into a file, and end it with SIGTERM."""
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-u", str(PROGRAMS / "ancestor.py"), *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=40)
            assert process.returncode == 0, errors
        finally:
            process.kill()
            process.communicate()


def vowels(word: str) -> str:
    return "".join(letter for letter in word if letter in "aeiou")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("broker_name", ["sqlite", "sqs"])
def test_readme_script_of_the_ancestor_prints_what_it_printed(broker_name: str, tmp_path: Path) -> None:
    with ExitStack() as opened:
        if broker_name == "sqlite":
            environment = {"SQSPIPES_BROKER": f"sqlite:///{tmp_path}/pipe.db"}
        else:
            server = Ministack()  # its own: the script's domain is fixed
            opened.callback(server.stop)
            environment = {"AWS_ENDPOINT_URL_SQS": server.url}
        files = {name: tmp_path / name for name in ("generate", "reduce", "count")}
        for name, workers in (("generate", "8"), ("reduce", "16"), ("count", "8")):
            opened.enter_context(script(name, workers, environment=environment, output=files[name]))
        eventually(lambda: len(files["count"].read_text().splitlines()) >= LINES, 60, "words are counted")
    words = files["generate"].read_text().splitlines()
    reduced = [line.split(" -> ") for line in files["reduce"].read_text().splitlines()]
    counted = [line.split(" -> ") for line in files["count"].read_text().splitlines()]
    assert {word for word, _ in reduced} <= set(words)
    assert all(rest == vowels(word) for word, rest in reduced)
    assert {word for word, _ in counted} <= {word for word, _ in reduced}
    assert all(int(number) == len(vowels(word)) for word, number in counted)
