"""Tasks: what users declare. Tasks and steps, what they may return, a client's whole pipe."""
