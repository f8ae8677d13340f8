"""One run from slices to record (`run`), the grid of runs as data (`grid`), and many runs in a given time."""
