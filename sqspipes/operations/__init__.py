"""Operations: what a client does beside running. Putting, dead letters, status, the output, queues, trials."""
