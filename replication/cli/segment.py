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
    segment.add_argument(
        "input", metavar="INPUT", help="NIfTI file, DICOM folder or multi-frame file, or folder of such"
    )
    segment.add_argument(
        "output",
        nargs="?",
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
    segment.add_argument(
        "--series",
        help="DICOM series or phase, where a folder holds several: number, UID, or as the error names it",
    )
    segment.add_argument(
        "--dicom-seg",
        action="store_true",
        help="write segmentation.dcm too, for a PACS or viewer; of a DICOM scan",
    )
    segment.add_argument(
        "--dry-run",
        action="store_true",
        help="list what would be read, and as what; read no voxels and no weights",
    )
    segment.add_argument(
        "--without", nargs="+", choices=STEPS, default=[], metavar="STEP",
        help=f"leave out a step behind the networks: {', '.join(STEPS)}",
    )  # fmt: skip
    segment.add_argument(
        "--strict", action="store_true", help="refuse a scan whose header or numbers are in doubt"
    )
    segment.add_argument(
        "--batch-size", type=int, default=1, help="slices at a time (default: 1, the least memory)"
    )
    segment.add_argument("--quiet", action="store_true", help="no progress bar")
    segment.set_defaults(run_command=_segment)


def _segment(options: argparse.Namespace) -> int:
    from replication.scans.folders import look_through

    reading = {"axes": options.axes, "intensity": options.intensity, "series": options.series}
    folder = look_through(options.input, out=options.output)
    if options.dry_run:
        return _list(folder, reading)
    if options.output is None:
        raise ValueError("no OUTPUT is given: a folder to write the masks into; or --dry-run")
    from tqdm import tqdm

    from replication.memory import keep_freed_memory
    from replication.scans.output import segment_all
    from replication.scans.weights import load_cascade

    keep_freed_memory()
    cascade = load_cascade(options.weights)

    def bar(step: str) -> Any:
        return None if options.quiet else lambda rows: tqdm(rows, desc=f"{step:9}", unit="batch", leave=False)

    segment_all(
        folder, Path(options.output), say=print, warn=lambda text: print(text, file=sys.stderr), cascade=cascade,
        bar=bar, strict=options.strict, batch_size=options.batch_size,
        cleaning=Cleaning(**dict.fromkeys(options.without, False)), dicom_seg=options.dicom_seg, **reading,
    )  # fmt: skip
    return 0


def _list(folder: Any, reading: dict[str, Any]) -> int:
    """A line for each scan and each thing left out; 1 where one would fail."""
    from replication.scans.glance import Glance

    amiss = sum(one.amiss for one in folder.left_out)
    for path in folder.scans.values():
        try:
            scan = Glance(path, **reading)
            print(scan)
            amiss += scan.amiss
        except (ValueError, OSError) as error:
            print(f"would fail: {error}")
            amiss += 1
    for one in (*folder.left_out, *folder.notes):
        print(one)
    return int(amiss > 0)
