"""The demo: a census of Python's standard library, by ``python -m sqspipes.demo`` or ``sqspipes demo``."""
