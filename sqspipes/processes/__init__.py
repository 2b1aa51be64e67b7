"""Processes: one run in several processes of this machine, which are started, watched and stopped together."""
