"""The way of one message: the map names the modules that it passes, and they become no more."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.integration.support import ROOT, child_environment

#: The modules that one message passes from put to acknowledgement, brokers left out. Fewer are better.
MOST = 45

#: What runs only if the watcher glances at the leader meanwhile, or if a busy machine makes a call a long one.
PERHAPS = {"engine/crew_parts.py", "engine/call_threads.py"}

PROGRAM = ROOT / "tests" / "integration" / "programs" / "way.py"


def test_map_names_the_modules_that_a_message_passes() -> None:
    ended = subprocess.run(
        [sys.executable, str(PROGRAM)],
        env=child_environment(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    passed = ended.stdout.split()
    page = (ROOT / "docs" / "architecture.rst").read_text(encoding="utf-8")
    section = page.partition("Modules on the way\n")[2].partition("\n\n\n")[0]
    named = re.findall(r"^``([a-z_/]+\.py)``$", section, re.MULTILINE)
    assert sorted({*named} - PERHAPS) == sorted({*passed} - PERHAPS)
    assert len(named) <= MOST
