"""Benchmarks that anyone can run: ``python -m benchmarks --help``, or ``tox -e bench``."""
