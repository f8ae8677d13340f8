"""`chs-net data`: from the published archives, or one's own volumes, to a store of slices."""

import argparse
import sys
from typing import Any


def add_to(groups: Any) -> None:
    """Add `data` and its commands."""
    data = groups.add_parser(
        "data", help="get the sources, draw phantoms, fuse volumes into slices, check a store"
    )
    commands = data.add_subparsers(dest="step", metavar="STEP")
    download = commands.add_parser(
        "download", help="get the paper's two sources, or link what lies on this disk"
    )
    download.add_argument(
        "folder", metavar="FOLDER", help="gets archives/ and volumes/; volumes is what fuse reads"
    )
    download.add_argument(
        "--only", choices=("zenodo", "medseg"), help="one source; default: both (zenodo [28], medseg [27])"
    )
    download.add_argument(
        "--local", action="append", default=[], metavar="DIR",
        help="folder with archives or unpacked volumes, under Zenodo's, MedSeg's or the Kaggle mirror's names; "
        "may be given again",
    )  # fmt: skip
    download.add_argument("--offline", action="store_true", help="fetch nothing; say what is missing")
    download.add_argument("--tries", type=int, default=4, help="for each file (default: %(default)s)")
    download.add_argument("--quiet", action="store_true", help="no progress bar")
    download.set_defaults(run_command=_download)

    phantom = commands.add_parser("phantom", help="draw synthetic CT volumes")
    phantom.add_argument("out", metavar="OUT", help="folder to write ct, lung and infection into")
    phantom.add_argument(
        "--seed", type=int, default=0, help="another draws other patients (default: %(default)s)"
    )
    phantom.add_argument("--depth", type=int, default=16, help="slices a volume (default: %(default)s)")
    phantom.add_argument(
        "--volumes", type=int, metavar="N", help="only N of the 13 volumes, from all sources"
    )
    phantom.add_argument("--size", type=int, help="rows and columns (default: as the source)")
    phantom.add_argument("--quiet", action="store_true", help="no progress bar")
    phantom.set_defaults(run_command=_phantom)

    _add_fuse(commands)
    check = commands.add_parser("check", help="look for problems in a store")
    check.add_argument("store", metavar="STORE", nargs="?", default="", help="folder of a slice store")
    check.add_argument("--profile", help="stop at the first problem for a run of this profile")
    check.add_argument("--quiet", action="store_true", help="no progress bar")
    check.set_defaults(run_command=_check)


def _add_fuse(commands: Any) -> None:
    fuse = commands.add_parser("fuse", help="turn volumes into a store of slices")
    fuse.add_argument("volumes", metavar="VOLUMES", help="folder with ct, lung and infection")
    fuse.add_argument("store", metavar="STORE", help="folder to write")
    fuse.add_argument(
        "--size", type=int, default=256, help="side of the slices, pixels (default: %(default)s)"
    )
    fuse.add_argument(
        "--preparation", choices=("window", "minmax-clahe"), default="window",
        help="window: every slice with lung, by one HU window; minmax-clahe: as the trained weights expect it, and only "
        "the middle 60 %% with infection (default: %(default)s)",
    )  # fmt: skip
    fuse.add_argument("--all-slices", action="store_true", help="minmax-clahe: every slice with lung")
    fuse.add_argument("--name", help="what the scans are called wherever weights trained on them say so")
    fuse.add_argument("--licence", help="on what terms they may be used, in words, for the same places")
    fuse.add_argument(
        "--published",
        action="store_true",
        help="the volumes are the paper's sources or phantoms: their names decide how they lie, and whose they are",
    )
    fuse.add_argument(
        "--patients", metavar="CSV", help="table of scan and patient (default: the folder is the patient)"
    )
    for part in ("lung", "infection"):
        fuse.add_argument(
            f"--{part}-labels",
            type=_labels,
            metavar="N[-M],...",
            help=f"labels of the {part} masks that count",
        )
    fuse.add_argument(
        "--axes", help="how the scans are stored, such as LPS, in place of what their headers say"
    )
    fuse.add_argument(
        "--intensity", choices=("auto", "hounsfield", "offset", "grey"), default="auto",
        help="what their numbers are (default: recognised)",
    )  # fmt: skip
    fuse.add_argument(
        "--strict", action="store_true", help="refuse a scan whose header or numbers are in doubt"
    )
    fuse.add_argument("--workers", type=int, default=1, help="processes at a time (default: %(default)s)")
    fuse.add_argument("--quiet", action="store_true", help="no progress bar")
    fuse.set_defaults(run_command=_fuse)


def _labels(text: str) -> tuple[int, ...]:
    """`1,2` or `10-14` -> the labels."""
    found: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        if not low.strip().isdigit() or high and not high.strip().isdigit():
            raise argparse.ArgumentTypeError(f"{text!r}: expected labels such as 1,2 or 10-14")
        found += range(int(low), int(high or low) + 1)
    return tuple(found)


def _download(args: argparse.Namespace) -> int:
    from replication.data.getting.download import download
    from replication.data.getting.sources import SOURCES

    told = download(
        args.folder, datasets=(args.only,) if args.only else tuple(SOURCES), offline=args.offline,
        local=args.local, tries=args.tries, progress=not args.quiet,
    )  # fmt: skip
    for key, counts in told["datasets"].items():
        print(f"{key}: {counts['volumes']} volumes, {counts['slices']} slices. {SOURCES[key].licence}.")
    print(f"{told['volumes']}: ready; next: chs-net data fuse --published {told['volumes']} STORE")
    return 0


def _phantom(args: argparse.Namespace) -> int:
    from replication.data.phantom.volumes import DEFAULT_VOLUMES, mixed_volumes, write_phantoms

    number = len(DEFAULT_VOLUMES) if args.volumes is None else args.volumes
    names = write_phantoms(
        args.out, seed=args.seed, volumes=mixed_volumes(number), depth=args.depth, size=args.size,
        progress=not args.quiet,
    )  # fmt: skip
    print(f"{args.out}: {len(names)} volumes of {args.depth} slices, seed {args.seed}")
    return 0


def _fuse(args: argparse.Namespace) -> int:
    from replication.data.fusing.fusion import fuse
    from replication.data.reading.own import Own

    own = Own(
        patients=args.patients, lung_labels=args.lung_labels, infection_labels=args.infection_labels,
        axes=args.axes, intensity=args.intensity, strict=args.strict,
    )  # fmt: skip
    if args.published and own != Own():
        raise ValueError(
            "--published goes with none of --patients, --*-labels, --axes, --intensity, --strict"
        )
    told = fuse(
        args.volumes, args.store, size=args.size, preparation=args.preparation,
        workers=args.workers, progress=not args.quiet, published=args.published, own=own, all_slices=args.all_slices,
        stated={k: v for k in ("name", "licence") if (v := getattr(args, k))},
    )  # fmt: skip
    for name, volume in told["volumes"].items():
        for note in [*volume["orientation"]["notes"], *volume["notes"]]:
            print(f"warning: {name}: {note}", file=sys.stderr)
    print(
        f"{args.store}: {told['slices_out']} of {told['slices_in']} slices from "
        f"{len(told['volumes'])} volumes, {args.size}x{args.size}, {args.preparation}{_left_out(told)}"
    )
    return 0


def _left_out(told: dict[str, Any]) -> str:
    """How many slices were dropped, and why."""
    why: dict[str, int] = {}
    for volume in told["volumes"].values():
        for reason, number in volume["dropped"].items():
            why[reason] = why.get(reason, 0) + number
    if not why:
        return ""
    cure = (
        "; --all-slices, into another folder, keeps all with lung" if set(why) - {"black", "no lung"} else ""
    )
    return f"; left out: {', '.join(f'{number} {reason}' for reason, number in sorted(why.items()))}{cure}"


def _check(args: argparse.Namespace) -> int:
    if args.profile is not None or not args.store:
        from replication.training.profiles import check_inputs

        check_inputs(profile=args.profile or "", slices=args.store)
        return 0
    from replication.data.slices.store import check_store

    problems = check_store(args.store, progress=not args.quiet)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{args.store}: {len(problems) or 'no'} problem{'s' * (len(problems) != 1)}")
    return 1 if problems else 0
