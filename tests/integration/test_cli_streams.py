"""Standard streams that are closed, that other programs write to, or that bring no UTF-8."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.integration.shell import Shell


def through(shell: Shell, words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command by the shell, which closes streams and passes bytes on."""
    line = f"{sys.executable} -m sqspipes {words}"
    return subprocess.run(
        ["bash", "-c", line], input=data, capture_output=True, timeout=60, check=False, **shell._options({})
    )


@pytest.fixture
def fed(shell: Shell) -> Shell:
    """A pipe with an output, and with one result in it."""
    text = (shell.folder / "pipelines.py").read_text()
    shell.write(
        "pipelines.py",
        text.replace("lease=5.0", 'lease=5.0, output="out"').replace(
            'print("shown", value, flush=True)', "return value"
        ),
    )
    shell.done("put", "numbers", "1")
    shell.done("run", "numbers", "--drain")
    return shell


def test_result_that_nobody_sees_is_not_taken(fed: Shell) -> None:
    ended = through(fed, "results numbers --timeout 1 >&-")
    assert (ended.returncode, ended.stderr) == (1, b"Error: standard output is closed\n")
    full = through(fed, "results numbers --timeout 1 >/dev/full")
    assert (full.returncode, b"No space left" in full.stderr) == (1, True)
    assert through(fed, "results numbers --timeout 1").stdout.count(b"\n") == 1


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_run_and_status_need_no_stream(closed: str, fed: Shell) -> None:
    fed.done("put", "numbers", "2")
    for words in ("run numbers --drain", "status numbers", "list", "dead numbers double"):
        ended = through(fed, f"{words} {closed}")
        assert (ended.returncode, b"Error" in ended.stderr) == (0, False), ended.stderr
    assert fed.held()[:3] == [0, 0, 0]


def test_put_from_a_closed_input_says_so(fed: Shell) -> None:
    ended = through(fed, "put numbers - <&-")
    assert (ended.returncode, ended.stderr) == (1, b"Error: standard input is closed\n")


def test_what_a_file_prints_when_it_is_imported_goes_to_standard_error(fed: Shell) -> None:
    text = (fed.folder / "pipelines.py").read_text()
    noise = (
        "import os, sys\nprint('one')\nos.system('echo two')\nos.write(1, b'three\\n')\nkept = sys.stdout\n"
    )
    fed.write("pipelines.py", noise + text + "\ndef late():\n    print('late', file=kept)\n")
    status = fed.run("status", "numbers", "--json")
    assert json.loads(status.stdout)["domain"] == fed.domain
    assert sorted(status.stderr.split()) == ["one", "three", "two"]
    assert len(fed.done("results", "pipelines:numbers", "-n", "1").splitlines()) == 1


def test_what_a_pipeline_prints_when_it_is_made_goes_to_standard_error(shell: Shell) -> None:
    shell.write(
        "made_pipelines.py",
        "from sqspipes import Pipeline\nclass Made(Pipeline):\n    name = 'made'\n    steps = [print]\n"
        "    def initialize(self):\n        print('made')\n",
    )
    ended = shell.run("status", "made", "--json")
    assert (json.loads(ended.stdout)["domain"], ended.stderr) == ("made", "made\n")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'1\n\n"J\xfcrgen"\n', "line 3 was not put, 1 value before it: it is not UTF-8: byte 3 is 0xfc"),
        (
            b"\xef\xbb\xbf1\n",
            "line 1 was not put, 0 values before it: it is UTF-8 with a byte order mark (BOM)",
        ),
        ("1\n".encode("utf-16"), "line 1 was not put, 0 values before it: it is UTF-16"),
        ("1\n".encode("utf-16-le"), "line 1 was not put, 0 values before it: it has bytes of zero"),
        (b"1\n\nNaN\n", "line 3 was not put, 1 value before it: "),
        (b"1\n" + b"[" * 100_000 + b"\n", "line 2 was not put, 1 value before it: it is not JSON: [["),
        (b'1\n\n\n"' + b"x" * 1_100_000 + b'"\n', "line 4 was not put, 1 value before it: "),
    ],
)
def test_line_that_cannot_be_put_is_named_by_its_number(data: bytes, said: str, shell: Shell) -> None:
    ended = through(shell, "put numbers -", data)
    assert (ended.returncode, b"Traceback" in ended.stderr) == (1, False)
    assert f"Error: {said}" in ended.stderr.decode()


def test_field_that_a_line_does_not_have_is_named_with_the_line(shell: Shell) -> None:
    lines = '{"a": 1}\n\n{"b": 1}\n'
    for option in ("--group-by", "--id-by"):
        said = shell.refused("put", "numbers", "-", option, "a", input=lines)
        assert said.startswith(
            f"Error: line 3 was not put, 1 value before it: {option} is 'a': a value has no such"
        )


@pytest.mark.parametrize("words", ["$'\"J\\xfcrgen\"'", "1 --group $'J\\xfcrgen'", "1 --id-by $'\\xfc'"])
def test_argument_that_is_not_utf8_is_refused(words: str, shell: Shell) -> None:
    ended = through(shell, f"put numbers {words}")
    assert (ended.returncode, b" is not utf-8: " in ended.stderr) == (1, True)
    assert shell.held() == [0, 0, 0, 0]
