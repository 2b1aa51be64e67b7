"""Messages: what travels. Values, the body format, ids, the names of queues, the control word."""
