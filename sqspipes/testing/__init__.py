"""Testing: what tests of pipes are made with."""
