"""`chs-net segment`: a scan in, masks out."""

import argparse
import sys
from pathlib import Path
from typing import Any

from replication.cli.weights import WEIGHTS
from replication.scans.steps import STEPS, Cleaning


def add_to(groups: Any) -> None:
    """Add the command."""
    segment = groups.add_parser("segment", help="find lungs and infection in a scan of your own")
    segment.add_argument("input", metavar="INPUT", help="NIfTI file, DICOM folder, or folder of such")
    segment.add_argument(
        "output",
        metavar="OUTPUT",
        help="folder to write lungs.nii.gz, infection.nii.gz, report.json and preview.png into",
    )
    segment.add_argument("--weights", metavar="NAME|PATH", help=f"{WEIGHTS} (default: the best patient fold)")
    segment.add_argument(
        "--axes", help="how the scan is stored, such as LPS, in place of what its header says"
    )
    segment.add_argument(
        "--intensity", choices=("auto", "hounsfield", "offset", "grey"), default="auto",
        help="what its numbers are (default: recognised)",
    )  # fmt: skip
    segment.add_argument("--series", help="number or UID of a DICOM series, where a folder holds several")
    segment.add_argument(
        "--without", nargs="+", choices=STEPS, default=[], metavar="STEP",
        help=f"leave out a step behind the networks: {', '.join(STEPS)}",
    )  # fmt: skip
    segment.add_argument(
        "--strict", action="store_true", help="refuse a scan whose header or numbers are in doubt"
    )
    segment.add_argument("--batch-size", type=int, default=4, help="slices at a time (default: %(default)s)")
    segment.add_argument("--quiet", action="store_true", help="no progress bar")
    segment.set_defaults(run_command=_segment)


def _segment(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from replication.scans.output import scans_of, segment_all
    from replication.scans.weights import load_cascade

    scans = scans_of(options.input)
    cascade = load_cascade(options.weights)

    def bar(step: str) -> Any:
        return None if options.quiet else lambda rows: tqdm(rows, desc=f"{step:9}", unit="batch", leave=False)

    segment_all(
        scans, Path(options.output), say=lambda text: print(text, file=sys.stderr if "failed" in text else sys.stdout),
        cascade=cascade, bar=bar, strict=options.strict, batch_size=options.batch_size,
        cleaning=Cleaning(**dict.fromkeys(options.without, False)),
        axes=options.axes, intensity=options.intensity, series=options.series,
    )  # fmt: skip
