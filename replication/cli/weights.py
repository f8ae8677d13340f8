"""`chs-net weights`: the trained weights that there are, and how a run's get to where `chslib.load_pretrained` reads them."""

import argparse
from pathlib import Path
from typing import Any

WEIGHTS = "a name of `chs-net weights list`, or a path: of a run's folder, or of what `weights export` wrote"


def add_to(groups: Any) -> None:
    """Add `weights` and its commands."""
    weights = groups.add_parser("weights", help="list trained weights, or export a run's")
    commands = weights.add_subparsers(dest="step", metavar="STEP")
    listing = commands.add_parser(
        "list", help="what each finds, its size, its score and on whom, its preparation"
    )
    listing.add_argument("--weights", metavar="NAME|PATH", help=f"{WEIGHTS} (default: those of the package)")
    export = commands.add_parser(
        "export", help="write a run's weights for `load_pretrained`, first stage and all"
    )
    export.add_argument("out", metavar="OUT", help="folder to write into, as <profile>/<run>")
    export.add_argument("--weights", metavar="NAME|PATH", required=True, help=WEIGHTS)
    export.add_argument("--results", help="folder of the run's record (default: the one beside its weights)")
    export.add_argument("--onnx", action="store_true", help="as ONNX, for a runtime without torch")
    export.add_argument("--replace", action="store_true", help="other weights that stand there")
    listing.set_defaults(run_command=_list)
    export.set_defaults(run_command=_export)


def _list(options: argparse.Namespace) -> None:
    from chslib.pretrained import FOLDER
    from replication.scans.weights import below, load, locate

    for path in locate(options.weights) if options.weights else below(FOLDER):
        stage = load(path)
        name = path.relative_to(FOLDER) if path.is_relative_to(FOLDER) else path
        config, test = stage.config, stage.sidecar["record"]["test"]
        what = "cascade" if stage.sidecar["first_stage"] else f"{config['target']} alone"
        people = stage.sidecar.get("tested_on", {}).get("people", len(test.get("patients", {})))
        whom = (
            "random slices"
            if config["protocol"] == "slice"
            else f"{people} patient{'s' * (people != 1)} apart"
        )
        print(
            f"{str(name):40} {what:15} {stage.size}x{stage.size}  Dice {stage.dsc:.3f} of {config['target']} on "
            f"{whom}, {stage.origin.preparation}"
        )


def _export(options: argparse.Namespace) -> None:
    for path in _written(options):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def _written(options: argparse.Namespace) -> list[Path]:
    if options.onnx:
        from replication.scans.onnx_export import export_onnx

        return export_onnx(options.weights, options.out)
    from replication.scans.weights import export

    return export(options.weights, options.out, results=options.results, replace=options.replace)
