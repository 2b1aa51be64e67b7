"""What producers write: it commands no terminal, forges no line, and hides nothing else."""

from __future__ import annotations

import json

from sqspipes.brokers import open_broker
from sqspipes.brokers.base import Entry
from tests.integration.shell import Shell

EVIL = "\x1b[2J\n08:00:00 INFO    forged: drained, 9 calls done\x9b"


def tame(text: str) -> bool:
    """Say whether a text has neither a command for terminals nor the forged line."""
    return not any(one in text for one in ("\x1b", "\x9b", "\n08:00:00 INFO"))


def failing(shell: Shell) -> None:
    """Have the first task fail with the value as its error."""
    text = (shell.folder / "pipelines.py").read_text()
    shell.write(
        "pipelines.py", text.replace("def double(value):", "def double(value):\n    raise OSError(value)")
    )


def store(shell: Shell, queue: str, *bodies: str) -> None:
    """Store messages as another program would."""
    broker = open_broker(shell.arguments["broker"])
    for number, body in enumerate(bodies):
        broker.send(f"{shell.domain}--{queue}.fifo", [Entry(body, f"g{number}", f"k{number}")])
    broker.close()


def test_value_id_and_group_of_a_producer_are_shown_escaped(shell: Shell) -> None:
    failing(shell)
    with shell.client() as client:
        client.put(EVIL, id=f"id {EVIL}", group=f"group {EVIL}")
    said = [shell.run("run", "numbers", "--drain", "-l", "debug").stderr]
    said.append(shell.run("run", "numbers", "--drain", "--log-format", "json").stderr)
    for words in ([], ["show", "id "], ["redrive", "id ", "--yes"]):
        ended = shell.run("dead", "numbers", "double", *words)
        assert ended.returncode == 0, ended.stderr
        said += [ended.stdout, ended.stderr]
    assert [text for text in said if not tame(text)] == []
    assert "OSError: \\x1b[2J" in said[0]
    assert all(json.loads(line) for line in said[1].splitlines())


def test_errors_show_what_they_were_given_escaped(shell: Shell) -> None:
    said = [shell.run("put", "numbers", "-", input="{\x1b[2J\n").stderr]
    said.append(shell.run("put", "numbers", "-", "--group-by", "a", input='{"\\u009b": 1}\n').stderr)
    said.append(shell.run("dead", "numbers", "double", "show", EVIL).stderr)
    said.append(shell.run("put", "numbers", "1", "--id-by", EVIL, "--debug").stderr)
    assert [text for text in said if not tame(text)] == []


def test_id_of_another_program_is_not_shown_whole(shell: Shell) -> None:
    failing(shell)
    shell.done("status", "numbers")
    store(shell, "double", json.dumps({"sqspipes": 1, "id": "x" * 900_000, "value": 1}))
    said = shell.run("run", "numbers", "--drain", "-l", "debug").stderr
    said += shell.done("dead", "numbers", "double") + shell.done("dead", "numbers", "double", "show", "xx")
    assert 1_000 < len(said) < 60_000


def test_letter_with_odd_times_or_deep_values_hides_no_other(shell: Shell) -> None:
    shell.done("status", "numbers")
    letters = [
        {"id": f"odd-{n}", "put": at, "dead": {"died": at}} for n, at in enumerate([1e17, -1e17, 1e300])
    ]
    bodies = [json.dumps({"sqspipes": 1, "value": 1, **letter}) for letter in letters]
    deep = '{"sqspipes": 1, "id": "deep", "value": ' + "[" * 900 + "]" * 900 + "}"
    store(shell, "double--dead", *bodies, deep)
    listed = shell.done("dead", "numbers", "double")
    assert [line.split()[0] for line in listed.splitlines()[1:]] == ["odd-0", "odd-1", "odd-2", "deep"]
    assert "first put  1e+17 s" in shell.done("dead", "numbers", "double", "show", "odd-0")
    assert shell.done("dead", "numbers", "double", "show", "deep").count("[") >= 900
    lines = shell.done("dead", "numbers", "double", "list", "--json").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["odd-0", "odd-1", "odd-2", "deep"]
    assert shell.done("dead", "numbers", "double", "redrive", "--all", "--yes").startswith(
        "4 dead letters sent"
    )


def test_listing_that_is_not_whole_says_so_and_has_a_code_of_its_own(shell: Shell) -> None:
    shell.done("status", "numbers")
    broker = open_broker(shell.arguments["broker"])
    for number in range(25):
        entry = Entry(json.dumps({"sqspipes": 1, "id": f"id-{number}", "value": number}), "one", f"k{number}")
        broker.send(f"{shell.domain}--double--dead.fifo", [entry])
    broker.close()
    for words in ([], ["list", "--json"]):
        ended = shell.run("dead", "numbers", "double", *words)
        assert (ended.returncode, ended.stdout.count("id-")) == (4, 10)
        assert "15 more wait behind others of their groups" in ended.stderr
    assert shell.done("dead", "numbers", "double", "redrive", "--all", "--yes").startswith(
        "25 dead letters sent"
    )


def test_letters_of_a_task_that_was_renamed_are_mended_by_its_name(shell: Shell) -> None:
    failing(shell)
    shell.done("put", "numbers", '"a"', '"b"', "--group", "g")
    shell.run("run", "numbers", "--drain")
    text = (shell.folder / "pipelines.py").read_text()
    shell.write("pipelines.py", text.replace('"method": double', '"name": "twice", "method": double'))
    first, second = (line.split()[0] for line in shell.done("dead", "numbers", "double").splitlines()[1:])
    assert '"a"' in shell.done("dead", "numbers", "double", "show", first)
    assert "say to=" in shell.refused("dead", "numbers", "double", "redrive", first, "--yes")
    said = shell.done("dead", "numbers", "double", "redrive", first, "--to", "twice", "--yes")
    assert said == "1 dead letter sent to twice again\n"
    assert shell.done("dead", "numbers", "double", "discard", second, "--yes").startswith(
        "1 dead letter of double"
    )
    assert "task 'nobody' is not registered" in shell.refused("dead", "numbers", "nobody")
