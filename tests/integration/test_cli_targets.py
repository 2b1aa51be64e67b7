"""The command line finds what is meant, and says so in one line if it does not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.integration.shell import Shell

#: What anything that has a client may look like.
CLASS = """
from sqspipes import TaskClient

class Greeter:
    def __init__(self):
        self.client = TaskClient("greeter", broker="memory://").register_tasks([print])

class Picky(Greeter):
    def __init__(self, needed):
        super().__init__()

number = 7
"""


def test_list_shows_clients_with_their_tasks_and_queues(shell: Shell) -> None:
    head, double, show = shell.done("list").splitlines()
    assert head.split() == ["name", "target", "task", "workers", "queues"]
    assert double.split()[:4] == ["numbers", "pipelines:numbers", "double", "1"]
    assert double.endswith(f"{shell.domain}--double.fifo and 1 more levels")
    assert show.split() == ["show", "1", f"{shell.domain}--show.fifo"]


def test_pipeline_without_a_name_has_that_of_its_class(shell: Shell) -> None:
    shell.write(
        "more_pipelines.py", "from sqspipes import Pipeline\n\nclass More(Pipeline):\n    steps = [print]\n"
    )
    assert json.loads(shell.done("list", "--json").splitlines()[0])["name"] == "More"
    assert "print" in shell.done("status", "More")


def test_list_is_json_on_request(shell: Shell) -> None:
    (line,) = shell.done("list", "--json").splitlines()
    found = json.loads(line)
    assert (found["name"], found["domain"]) == ("numbers", shell.domain)
    assert [task["name"] for task in found["tasks"]] == ["double", "show"]
    assert len(found["tasks"][0]["queues"]) == 3


def test_broken_file_is_shown_with_its_line_and_the_others_work(any_shell: Shell) -> None:
    any_shell.write("below/broken_pipelines.py", "import json\n\nimport not_there\n")
    any_shell.write("torn_pipelines.py", "def half(:\n")
    ended = any_shell.run("list")
    below, torn = ended.stderr.splitlines()
    assert (ended.returncode, "pipelines:numbers" in ended.stdout) == (0, True)
    assert torn.startswith("below/broken_pipelines.py cannot be imported: line 3: ModuleNotFoundError: ")
    assert below.startswith("torn_pipelines.py cannot be imported: line 1: SyntaxError: ")
    assert any_shell.run("put", "numbers", "1").returncode == 0


def test_broken_file_alone_is_an_error(any_shell: Shell) -> None:
    any_shell.write("pipelines.py", "raise SystemExit('not like this')")
    assert any_shell.refused("list") == "pipelines.py cannot be imported: line 1: SystemExit: not like this"


def test_empty_folder_gets_a_hint(shell: Shell) -> None:
    (shell.folder / "pipelines.py").unlink()
    ended = shell.run("list")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "write one into pipelines.py (see sqspipes --help)" in ended.stderr


def test_first_pipe_of_the_help_works(shell: Shell) -> None:
    _, _, rest = shell.done("--help").partition("write this into pipelines.py\n")
    program, _, rest = rest.partition("  and then, in the same folder, type\n")
    shell.write("pipelines.py", "\n".join(line[6:] for line in program.splitlines()))
    put, run = (line.split()[1:] for line in rest.splitlines()[:2])
    shell.done(*put)
    assert shell.done(*run, "--drain").split() == ["2", "4", "6"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nombers", "target 'nombers' is not found (did you mean 'numbers'?): there are numbers"),
        ("nothing:client", "target 'nothing:client' cannot be imported: ModuleNotFoundError"),
        (
            "pipelines:nombers",
            "target 'pipelines:nombers': pipelines has no 'nombers' (did you mean 'numbers'?)",
        ),
        ("pipelines:double", "target 'pipelines:double' is of type function: allowed is a TaskClient"),
        (":", "target is ':': allowed is module:attribute"),
        ("classes:Picky", "TypeError: "),
        ("classes:number", "target 'classes:number' is of type int: allowed is a TaskClient, a Pipeline"),
    ],
)
def test_target_that_is_none_is_an_error_in_one_line(target: str, said: str, any_shell: Shell) -> None:
    any_shell.write("classes.py", CLASS)
    ended = any_shell.run("status", target)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert ended.stderr.startswith(f"Error: {said}")


def test_debug_shows_the_traceback_before_and_after_the_command(shell: Shell) -> None:
    for words in (("--debug", "status", "nothing:client"), ("status", "nothing:client", "--debug")):
        ended = shell.run(*words)
        assert (ended.returncode, "Traceback" in ended.stderr) == (1, True)
        assert "ModuleNotFoundError" in ended.stderr


def test_class_with_a_client_is_a_target(shell: Shell) -> None:
    shell.write("classes.py", CLASS)
    assert json.loads(shell.done("status", "classes:Greeter", "--json"))["domain"] == "greeter"


def test_working_dir_counts_before_and_after_the_command(shell: Shell) -> None:
    shell.write("inner/pipelines.py", (shell.folder / "pipelines.py").read_text().replace("numbers", "inner"))
    assert "inner.pipelines" in shell.done("list")
    assert shell.done("-W", "inner", "list") == shell.done("list", "--working-dir", "inner")
    assert "numbers" not in shell.done("list", "-W", "inner")


def test_working_dir_that_is_not_there_is_not_understood(shell: Shell) -> None:
    assert "'nowhere' does not exist" in shell.refused("list", "-W", "nowhere", code=2)


def test_file_of_a_package_is_imported_under_its_name_in_the_package(shell: Shell) -> None:
    text = (shell.folder / "pipelines.py").read_text()
    (shell.folder / "pipelines.py").unlink()
    shell.write("src/app/__init__.py", "")
    shell.write("src/app/tools.py", text)
    shell.write("src/app/pipelines.py", "from app.tools import numbers\n")
    assert "app.pipelines:numbers" in shell.done("list")
    shell.done("put", "numbers", "1")


def test_hidden_folders_and_environments_are_not_looked_into(shell: Shell) -> None:
    for folder in (".hidden", "env", "node_modules/deep"):
        shell.write(f"{folder}/pipelines.py", "import not_there\n")
    shell.write("env/pyvenv.cfg", "")
    assert shell.run("list").stderr == ""


def test_client_that_another_file_imports_is_found_once(shell: Shell) -> None:
    shell.write("more_pipelines.py", "from pipelines import numbers\n")
    assert len(shell.done("list", "--json").splitlines()) == 1


def test_name_that_two_have_is_an_error(shell: Shell) -> None:
    shell.write("other/pipelines.py", (shell.folder / "pipelines.py").read_text())
    said = "Error: target 'numbers' is pipelines:numbers and other.pipelines:numbers: name one of them"
    assert shell.refused("status", "numbers") == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("numbers", "run"), "The command comes first: sqspipes run numbers"),
        (("numbers", "push", "1", "2"), "The command comes first: sqspipes push numbers 1 2"),
        (
            ("stattus", "numbers"),
            "There is no command 'stattus' (did you mean 'status'?): there are list, run,",
        ),
        (("status",), "Missing argument 'TARGET'"),
        (("dead", "numbers", "double", "lst"), "No such command 'lst'"),
    ],
)
def test_command_that_is_none_gets_a_hint(words: tuple[str, ...], said: str, shell: Shell) -> None:
    assert shell.refused(*words, code=2).startswith(f"Error: {said}")


@pytest.mark.parametrize(
    "words",
    [("status", "numbers"), ("put", "numbers", "1"), ("dead", "numbers", "double"), ("run", "numbers")],
)
def test_account_that_is_missing_is_an_error_in_one_line(words: tuple[str, ...], shell: Shell) -> None:
    ended = shell.run(*words, SQSPIPES_BROKER="sqs://", AWS_REGION="us-west-2")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert "SQSPIPES_BROKER=sqlite:///" in ended.stderr


def test_secrets_show_nowhere_when_everything_is_logged(any_shell: Shell) -> None:
    text = (any_shell.folder / "pipelines.py").read_text()
    any_shell.write("pipelines.py", text.replace("lease=5.0", "lease=5.0, transport='boto3'"))
    secrets = {"AWS_SECRET_ACCESS_KEY": "TheSecret", "AWS_SESSION_TOKEN": "TheToken"}
    ended = any_shell.run("run", "numbers", "--drain", "--drain-seconds", "0.1", "-l", "debug", **secrets)
    assert (ended.returncode, "drained" in ended.stderr) == (0, True)
    assert [secret for secret in secrets.values() if secret in ended.stderr] == []


def test_secret_of_a_client_shows_nowhere(shell: Shell) -> None:
    account = "aws_key='key', aws_secret='TheSecret', aws_region='us-west-2'"
    nobody = f"broker='sqs://', endpoint_url='http://127.0.0.1:9', {account}"
    text = (shell.folder / "pipelines.py").read_text()
    shell.write("pipelines.py", text.replace("lease=5.0", f"lease=5.0, {nobody}"))
    ended = shell.run("list", "--debug")
    assert (ended.returncode, "TheSecret" in ended.stdout + ended.stderr) == (0, False)
    wrong = shell.run("run", "numbers", "nothing", "--debug", "-l", "debug")
    assert (wrong.returncode, "TheSecret" in wrong.stdout + wrong.stderr) == (1, False)


def test_terminal_gets_a_bold_head_and_a_pipe_gets_text(shell: Shell) -> None:
    with shell.terminal("list") as terminal:
        assert terminal.end() == 0
        assert "\x1b[1m" in terminal.shown
    assert "\x1b" not in shell.done("list")


def test_package_does_not_import_what_the_command_line_needs() -> None:
    code = "import sys, sqspipes; print(sorted({'click', 'rich', 'sqspipes.cli'} & sys.modules.keys()))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
