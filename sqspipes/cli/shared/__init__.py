"""Shared: what several commands are made of."""
