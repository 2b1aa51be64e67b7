"""Starting: while the modules of the command ``sqspipes`` are imported, Ctrl-C ends it without a traceback.

Any other program that imports the package is left alone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def _is_command() -> bool:
    """Say whether this process was started as ``sqspipes`` or as ``python -m sqspipes``."""
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # as long as the module is being looked for
        words = sys.orig_argv
        return words[words.index("-m") + 1 :][:1] == ["sqspipes"] if "-m" in words else False
    return os.path.basename(program) in ("sqspipes", "sqspipes.exe") and os.path.isfile(program)


def _leave_to_the_system() -> bool:
    on_main = threading.current_thread() is threading.main_thread()
    if not (on_main and _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        return False
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return True


_left = _leave_to_the_system()


def over() -> None:
    """Have Ctrl-C raise ``KeyboardInterrupt`` again: the command is there to catch it."""
    if _left and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
