"""Programs that are measured; each runs in a process of its own, so that its CPU time is its own."""
