"""How fast CHS-Net is, against plain forms of itself, its limits and its peers.

    python -m benchmarks --slices <folder>        # everything; an hour or so on two cores
    python -m benchmarks pooling step             # some parts

Every figure is a ratio taken in one run: the forms that are compared take turns, round by round,
and a check that they compute the same (in float64, gradients too) stands beside them. The record
goes to `results/benchmarks/<device>.json`, part by part, so that an interrupted run goes on;
notebook 12 draws it.
"""
