"""Console: what the command line and the demo show: tables, numbers in words, a live view of a run."""
