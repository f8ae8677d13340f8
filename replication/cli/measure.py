"""`chs-net measure`: records of what is measured without a training."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from replication.cli.places import add_places


def add_to(groups: Any) -> None:
    """Add `measure` and its commands."""
    measure = groups.add_parser(
        "measure", help="leak, contrast, cleaning, upper bound; of a run: thresholds, lesions, false alarms"
    )
    commands = measure.add_subparsers(dest="step", metavar="WHAT")
    leak = commands.add_parser("leak", help="score the masks of the nearest training slices")
    contrast = commands.add_parser("contrast", help="measure how each patient's infection stands out")
    cleaning = commands.add_parser("cleaning", help="measure what each step behind the networks is worth")
    cleaning.add_argument(
        "--scan", nargs=2, type=Path, metavar=("CT", "LUNGS"),
        help="on a scan of your own with a mask of its lungs, in place of slices",
    )  # fmt: skip
    cleaning.add_argument(
        "--runs",
        type=Path,
        help="on the lungs that runs of first stages by patients left here, in place of a network",
    )
    for command, size in ((leak, 128), (contrast, 256), (cleaning, 256)):
        command.add_argument("--slices", required=command is not cleaning, help="folder of a slice store")
        command.add_argument(
            "--size", type=int, default=size, help="side of the slices, pixels (default: %(default)s)"
        )
        add_places(command, runs=False)
    upper = commands.add_parser("upper-bound", help="measure what the upper end of Hounsfield units moves")
    upper.add_argument(
        "--scan", nargs=2, type=Path, metavar=("CT", "LUNGS"), required=True,
        help="a scan in Hounsfield units with a mask of its lungs",
    )  # fmt: skip
    add_places(upper, runs=False)
    upper.set_defaults(run_command=_upper_bound)
    thresholds = commands.add_parser("thresholds", help="score a trained run at a ladder of thresholds")
    lesions = commands.add_parser("lesions", help="recall of a run by the size of a lesion")
    alarms = commands.add_parser(
        "false-alarms", help="what a direct run calls infected on test slices without infection"
    )
    for command in (thresholds, lesions, alarms):
        command.add_argument("run", help="a name of the grid; chs-net list shows them")
        command.add_argument("--profile", default="cpu", help="of the run (default: %(default)s)")
        command.add_argument("--slices", required=True, help="folder of the slice store")
        add_places(command)
    lesions.set_defaults(run_command=_lesions)
    alarms.set_defaults(run_command=_false_alarms)
    leak.set_defaults(run_command=_leak)
    contrast.set_defaults(run_command=_contrast)
    cleaning.set_defaults(run_command=_cleaning)
    thresholds.set_defaults(run_command=_thresholds)


def _leak(options: argparse.Namespace) -> None:
    from replication.analysis.leak import RECORD, leakage_record
    from replication.analysis.measurements import write_measured
    from replication.data.slices.store import TARGETS, read_store

    store = read_store(options.slices, size=options.size)
    for entry in write_measured(Path(options.results) / RECORD, leakage_record(store))["entries"]:
        name = f"seed {entry['seed']}" if entry["protocol"] == "slice" else f"fold {entry['fold']}"
        shown = "  ".join(f"{t} DSC {entry[t]['pooled']['dsc']:.3f}" for t in TARGETS)
        print(f"{entry['protocol']:8}{name:8}{shown}")


def _contrast(options: argparse.Namespace) -> None:
    from replication.analysis.contrast import RECORD, contrast_record, read_contrast
    from replication.analysis.measurements import write_measured
    from replication.data.slices.store import read_store

    path = Path(options.results) / RECORD
    write_measured(path, contrast_record(read_store(options.slices, size=options.size)))
    print(read_contrast(path).round(3).to_string())


def _cleaning(options: argparse.Namespace) -> None:
    import tempfile

    from replication.analysis import cleaning
    from replication.analysis.measurements import write_measured
    from replication.data.slices.store import read_store

    if options.scan:
        name, content, read = cleaning.ON_SCAN, cleaning.scan_record(*options.scan), cleaning.read_scan
    elif not options.slices:
        raise ValueError("expected --slices STORE, or --scan CT LUNGS")
    elif options.runs:
        store = read_store(options.slices, size=options.size)
        name, content, read = (
            cleaning.ON_FOLDS,
            cleaning.folds_record(store, options.runs),
            cleaning.read_folds,
        )
    else:
        store, name, read = (
            read_store(options.slices, size=options.size),
            cleaning.RECORD,
            cleaning.read_cleaning,
        )
        with tempfile.TemporaryDirectory() as folder:
            content = cleaning.cleaning_record(store, folder=Path(folder))
    write_measured(Path(options.results) / name, content)
    print(read(options.results).round(4).to_string())


def _upper_bound(options: argparse.Namespace) -> None:
    from replication.analysis.measurements import write_measured
    from replication.analysis.upper_bound import RECORD, read_upper_bound, upper_bound_record

    write_measured(Path(options.results) / RECORD, upper_bound_record(*options.scan))
    print(read_upper_bound(options.results).round(3).to_string())


def _of_run(
    options: argparse.Namespace, folder: str, measured: Callable[..., dict], **more: Any
) -> dict[str, Any]:
    """Measure a run and write what was found to the folder of its kind; returns the record."""
    from replication.analysis.measurements import write_measured

    where = {k: getattr(options, k) for k in ("profile", "slices", "results", "runs")}
    content = measured(options.run, **where, **more)
    return write_measured(Path(options.results, folder, options.profile, f"{content['run']}.json"), content)


def _thresholds(options: argparse.Namespace) -> None:
    from replication.analysis.thresholds import FOLDER, threshold_record, thresholds_of

    line = thresholds_of([_of_run(options, FOLDER, threshold_record, progress=sys.stderr.isatty())]).iloc[0]
    print(
        f"{line['run']}: at 0.5 DSC {line['usual']:.3f}, at {line['threshold']:g} (chosen on validation slices) "
        f"{line['chosen']:.3f}, at most {line['highest']:.3f}"
    )


def _lesions(options: argparse.Namespace) -> None:
    from replication.analysis.lesions import FOLDER, lesion_record

    for of in _of_run(options, FOLDER, lesion_record)["classes"]:
        recall = of["found"] / of["pixels"] if of["pixels"] else float("nan")
        print(
            f"from {of['from']:5} pixels: {of['lesions']:5} lesions, {of['touched']:5} touched, recall {recall:.3f}"
        )


def _false_alarms(options: argparse.Namespace) -> None:
    from replication.analysis.false_alarms import FOLDER, false_alarm_record

    record = _of_run(options, FOLDER, false_alarm_record)
    print(
        f"{record['run']}: an alarm on {record['with_alarm']} of {record['healed']} healed slices, "
        f"{record['alarm_pixels'] / max(record['lung_pixels'], 1):.2%} of the lung called infected"
    )
