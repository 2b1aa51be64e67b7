"""The demo: a census of Python's standard library, by ``python -m sqspipes.demo`` or ``sqspipes demo``."""

from __future__ import annotations

from sqspipes.demo.show import main

__all__ = ["main"]
