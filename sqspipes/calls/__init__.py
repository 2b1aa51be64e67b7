"""One call of a task: from a message that is held to an outcome, wherever the call is made."""
