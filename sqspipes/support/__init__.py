"""Support: what every layer uses. Checks of options, clocks, log lines, threads, URLs as they are shown."""
