"""The engine without locks: one thread at a time holds all state of a run. It grows beside ``runner``."""
