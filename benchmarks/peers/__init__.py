"""Other libraries with the same two tasks, each in a virtual environment of its own."""
