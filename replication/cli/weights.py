"""`chs-net weights`: what `chslib.load_pretrained` can load, and how a trained run gets there."""

import argparse
from pathlib import Path
from typing import Any


def add_to(groups: Any) -> None:
    """Add `weights` and its commands."""
    weights = groups.add_parser("weights", help="list the trained weights, or export a run's")
    commands = weights.add_subparsers(dest="step", required=True, metavar="STEP")
    listing = commands.add_parser("list", help="the weights that are there")
    export = commands.add_parser("export", help="write a run's weights, those of its first stage first")
    for command in (listing, export):
        command.add_argument("--weights", help="their folder (default: chslib/weights)")
    export.add_argument("run", nargs="?", help="a name of the grid; chs-net list shows them")
    export.add_argument(
        "--onnx", nargs=2, metavar=("NAME", "FOLDER"),
        help="in place of a run: write weights that are there as ONNX, a cascade's first stage too",
    )  # fmt: skip
    export.add_argument("--profile", default="cpu")
    export.add_argument("--results", default="results")
    export.add_argument("--runs", default="runs")
    listing.set_defaults(run_command=_list)
    export.set_defaults(run_command=_export)


def _list(options: argparse.Namespace) -> None:
    from chslib.pretrained import FOLDER, available

    print("\n".join(available(options.weights or FOLDER)))


def _export(options: argparse.Namespace) -> None:
    if bool(options.run) == bool(options.onnx):
        raise ValueError("weights export: expected either a run, or --onnx NAME FOLDER")
    for path in _written(options):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def _written(options: argparse.Namespace) -> list[Path]:
    if options.onnx:
        from replication.scans.onnx_export import export_onnx

        return export_onnx(*options.onnx)
    from chslib.pretrained import FOLDER
    from replication.training.export import export_with_first_stage

    return export_with_first_stage(
        options.run, profile=options.profile, results=options.results, runs=options.runs,
        folder=options.weights or FOLDER,
    )  # fmt: skip
