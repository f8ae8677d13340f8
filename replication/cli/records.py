"""`chs-net records`: judge a record that comes from elsewhere."""

import argparse
from typing import Any


def add_to(groups: Any) -> None:
    """Add `records` and its command."""
    records = groups.add_parser("records", help="judge records of runs that come from elsewhere")
    commands = records.add_subparsers(dest="step", metavar="STEP")
    check = commands.add_parser("check", help="whether a record counts: what it says, its data, its commit")
    check.add_argument("files", nargs="+", metavar="FILE", help="the records")
    check.add_argument("--predictions", help="masks.npz of the run, of one record: recount its scores")
    check.add_argument("--slices", help="folder of the slice store, for the recount")
    check.set_defaults(run_command=_check)


def _check(options: argparse.Namespace) -> None:
    from replication.evidence.incoming import judge_record

    if options.predictions and len(options.files) > 1:
        raise ValueError(f"--predictions are of one record, and {len(options.files)} came.")
    for file in options.files:
        found = judge_record(file, predictions=options.predictions, slices=options.slices)
        print(f"{file} counts", *found, sep="\n  ")
