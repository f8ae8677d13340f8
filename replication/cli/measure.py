"""`chs-net measure`: records of what is measured without a training."""

import argparse
import sys
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
    from replication.data.slices.store import TARGETS, read_store
    from replication.files import write_json

    record = leakage_record(read_store(options.slices, size=options.size))
    write_json(Path(options.results) / RECORD, record)
    for entry in record["entries"]:
        name = f"seed {entry['seed']}" if entry["protocol"] == "slice" else f"fold {entry['fold']}"
        shown = "  ".join(f"{t} DSC {entry[t]['pooled']['dsc']:.3f}" for t in TARGETS)
        print(f"{entry['protocol']:8}{name:8}{shown}")


def _contrast(options: argparse.Namespace) -> None:
    from replication.analysis.contrast import RECORD, contrast_record, read_contrast
    from replication.data.slices.store import read_store
    from replication.files import write_json

    path = Path(options.results) / RECORD
    write_json(path, contrast_record(read_store(options.slices, size=options.size)))
    print(read_contrast(path).round(3).to_string())


def _cleaning(options: argparse.Namespace) -> None:
    import tempfile

    from replication.analysis import cleaning
    from replication.data.slices.store import read_store
    from replication.files import write_json

    results = Path(options.results)
    if options.scan:
        write_json(results / cleaning.ON_SCAN, cleaning.scan_record(*options.scan))
        print(cleaning.read_scan(results).round(3).to_string())
        return
    if not options.slices:
        raise ValueError("expected --slices STORE, or --scan CT LUNGS")
    if options.runs:
        store = read_store(options.slices, size=options.size)
        write_json(results / cleaning.ON_FOLDS, cleaning.folds_record(store, options.runs))
        print(cleaning.read_folds(results).round(4).to_string())
        return
    with tempfile.TemporaryDirectory() as folder:
        record = cleaning.cleaning_record(read_store(options.slices, size=options.size), folder=Path(folder))
    write_json(results / cleaning.RECORD, record)
    print(cleaning.read_cleaning(results).round(3).to_string())


def _upper_bound(options: argparse.Namespace) -> None:
    from replication.analysis.upper_bound import RECORD, read_upper_bound, upper_bound_record
    from replication.files import write_json

    results = Path(options.results)
    write_json(results / RECORD, upper_bound_record(*options.scan))
    print(read_upper_bound(results).round(3).to_string())


def _thresholds(options: argparse.Namespace) -> None:
    from replication.analysis.thresholds import FOLDER, threshold_record, thresholds_of
    from replication.files import write_json

    record = threshold_record(
        options.run, profile=options.profile, slices=options.slices, results=options.results,
        runs=options.runs, progress=sys.stderr.isatty(),
    )  # fmt: skip
    path = Path(options.results) / FOLDER / options.profile / f"{record['run']}.json"
    write_json(path, record)
    line = thresholds_of([record]).iloc[0]
    print(
        f"{path}: at 0.5 DSC {line['usual']:.3f}, at {line['threshold']:g} (chosen on validation slices) "
        f"{line['chosen']:.3f}, at most {line['highest']:.3f}"
    )


def _lesions(options: argparse.Namespace) -> None:
    from replication.analysis.lesions import FOLDER, lesion_record
    from replication.files import write_json

    where = {k: getattr(options, k) for k in ("profile", "slices", "results", "runs")}
    record = lesion_record(options.run, **where)
    write_json(Path(options.results) / FOLDER / options.profile / f"{record['run']}.json", record)
    for of in record["classes"]:
        recall = of["found"] / of["pixels"] if of["pixels"] else float("nan")
        print(
            f"from {of['from']:5} pixels: {of['lesions']:5} lesions, {of['touched']:5} touched, recall {recall:.3f}"
        )


def _false_alarms(options: argparse.Namespace) -> None:
    from replication.analysis.false_alarms import FOLDER, false_alarm_record
    from replication.files import write_json

    where = {k: getattr(options, k) for k in ("profile", "slices", "results", "runs")}
    record = false_alarm_record(options.run, **where)
    write_json(Path(options.results) / FOLDER / options.profile / f"{record['run']}.json", record)
    print(
        f"{record['run']}: an alarm on {record['with_alarm']} of {record['healed']} healed slices, "
        f"{record['alarm_pixels'] / max(record['lung_pixels'], 1):.2%} of the lung called infected"
    )
