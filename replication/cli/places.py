"""Where own runs lie by default: beside the committed records and those of the synthetic slices, never in their place."""

import argparse

RESULTS, RUNS = "results/local", "runs/local"


def add_places(command: argparse.ArgumentParser, *, runs: bool = True) -> None:
    """Add `--results` and, where a command needs what trainings left, `--runs`."""
    command.add_argument("--results", default=RESULTS, help="folder of records (default: %(default)s)")
    if runs:
        command.add_argument(
            "--runs", default=RUNS, help="folder of weights and predictions (default: %(default)s)"
        )
