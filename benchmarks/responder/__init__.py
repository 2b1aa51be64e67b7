"""A small SQS in memory: fast, with a round trip, quotas and counters, and with FIFO rules alone."""
