"""What the pages of the docs show is what happens, and every page can be found."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sqspipes.tasks.registration import KEYS
from tests.integration.shell import Shell
from tests.integration.support import ROOT

spec = importlib.util.spec_from_file_location("option_tables", ROOT / "docs" / "option_tables.py")
assert spec is not None and spec.loader is not None
option_tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(option_tables)

#: Pages that only Sphinx can read; the first one leads to all others, or the build fails.
SPHINX = {"index.rst", "api.rst"}

PAGES = sorted({path.name for path in (ROOT / "docs").glob("*.rst")} - SPHINX)


def text_of(page: str) -> str:
    """Return the text of a page."""
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def programs_in(page: str) -> list[str]:
    """Return the blocks of Python in a page."""
    found = []
    for after in text_of(page).split(".. code-block:: python\n")[1:]:
        lines = after.splitlines()
        end = next((i for i, line in enumerate(lines) if line and not line.startswith("    ")), len(lines))
        found.append(textwrap.dedent("\n".join(lines[:end])))
    return found


def shown(printed: str) -> str:
    """Return what a command printed as a page shows it."""
    return textwrap.indent(printed, "    ")


@pytest.fixture
def shop(shell: Shell) -> Shell:
    """A folder with the pipe of the quickstart."""
    shell.write("pipelines.py", programs_in("quickstart.rst")[0])
    return shell


@pytest.mark.parametrize("command", ["list", "status shop"])
def test_quickstart_shows_what_is_printed(command: str, shop: Shell) -> None:
    assert shown(f"$ sqspipes {command}\n" + shop.done(*command.split())) in text_of("quickstart.rst")


def test_quickstart_mends_what_fails(shop: Shell) -> None:
    program, mended, _ = programs_in("quickstart.rst")
    shop.done("put", "shop", '"2 tea"', '"1 cake"')
    assert shop.run("run", "shop", "--drain").returncode == 3
    assert shop.done("results", "shop", "-n", "1") == '"2 tea: 6 euros"\n'
    assert "2  KeyError: 'cake'" in shop.done("dead", "shop", "price")
    shop.write("pipelines.py", program.replace('PRICES = {"tea": 3, "coffee": 4}\n', mended))
    redrive = ["dead", "shop", "price", "redrive", "--all", "--yes"]
    assert shown(f"$ sqspipes {' '.join(redrive)}\n{shop.done(*redrive)}") in text_of("quickstart.rst")
    shop.done("run", "shop", "--drain")
    assert shown(shop.done("results", "shop", "-n", "1")) in text_of("quickstart.rst")


def test_quickstart_leaves_the_broker_to_the_environment(shop: Shell) -> None:
    program, _, client = programs_in("quickstart.rst")
    before, _, after = program.partition("shop = TaskClient(")
    shop.write("pipelines.py", before + client + after.partition("\n")[2])
    shop.done("put", "shop", '"2 tea"')
    assert "shop runs on sqlite:///" in shop.run("run", "shop", "--drain").stderr
    assert not (shop.folder / "shop.db").exists()


@pytest.mark.parametrize(
    ("place", "printed"),
    [(1, ["hello 2", "queue 4"]), (3, ["{'text': 'to be or not to be', 'words': 6}"]), (5, ["6"])],
    ids=["sqspipes 0.3", "lineup", "Celery"],
)
def test_program_after_the_change_runs(
    place: int, printed: list[str], tmp_path: Path, environment: dict[str, str]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", programs_in("coming_from.rst")[place]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.stderr == ""
    assert sorted(ended.stdout.splitlines()) == printed


@pytest.mark.parametrize("page", PAGES)
def test_page_is_linked_from_the_readme(page: str) -> None:
    readme = (ROOT / "README.rst").read_text(encoding="utf-8")
    assert f": docs/{page}\n" in readme


@pytest.mark.parametrize("page", PAGES)
def test_page_is_checked_by_tox(page: str) -> None:
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    assert f"docutils --strict --writer=null {{tox_root}}{{/}}docs{{/}}{page}\n" in tox


@pytest.mark.parametrize(("page", "most"), [("internals.rst", 50), ("architecture.rst", 30)])
def test_modules_that_a_page_names_are_there(page: str, most: int) -> None:
    named = set(re.findall(r"``([a-z_/]+\.py)``", text_of(page)))
    assert len(named) > most
    assert [
        name for name in sorted(named) if not any((ROOT / top / name).exists() for top in ("sqspipes", ""))
    ] == []


@pytest.mark.parametrize("page", option_tables.PAGES, ids=lambda page: page.name)
def test_table_of_options_is_that_of_registration(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == option_tables.written(text), "python docs/option_tables.py writes it anew"
    assert "``retries=8`` \\*" in text
    assert all(f"``{key}" in text for key in KEYS)


@pytest.mark.parametrize(
    ("page", "place", "printed"),
    [
        ("around.rst", 0, ["42", "attempt 1 took 0 s", "attempt 1 took 0 s"]),
        ("around.rst", 1, ["1"]),
        ("around.rst", 2, ["1"]),
        (
            "listeners.rst",
            0,
            ["divide three: done, less than a minute: True", "divide zero: dead, ZeroDivisionError"],
        ),
    ],
    ids=["timing", "session", "flag", "listener"],
)
def test_program_of_a_page_runs(
    page: str, place: int, printed: list[str], tmp_path: Path, environment: dict[str, str]
) -> None:
    program = programs_in(page)[place]
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, sorted(ended.stdout.splitlines())) == (0, sorted(printed)), ended.stderr
