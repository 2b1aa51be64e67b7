"""Transport: what a request to SQS obeys by either transport: signatures, clocks, cut polls, the gate for answers."""
