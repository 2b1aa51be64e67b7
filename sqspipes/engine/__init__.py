"""One run in one process: one thread at a time holds all of its state."""
