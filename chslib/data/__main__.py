"""`python -m chslib.data {phantom,fuse,check}`: the data steps from a shell or a workflow."""

import argparse
import sys
from collections.abc import Sequence


def build_parser() -> argparse.ArgumentParser:
    """The command line; kept apart so that a page can print its help."""
    parser = argparse.ArgumentParser(prog="python -m chslib.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    phantom = commands.add_parser("phantom", help="draw synthetic CT volumes")
    phantom.add_argument("out", metavar="OUT", help="folder to write ct, lung and infection into")
    phantom.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    phantom.add_argument("--depth", type=int, default=16, help="slices a volume (%(default)s)")
    phantom.add_argument(
        "--volumes", type=int, metavar="N", help="only N of the 10 volumes, from both sources"
    )
    phantom.add_argument("--size", type=int, help="rows and columns (default: as the source)")

    fuse = commands.add_parser("fuse", help="turn volumes into a store of slices")
    fuse.add_argument("volumes", metavar="VOLUMES", help="folder with ct, lung and infection")
    fuse.add_argument("store", metavar="STORE", help="folder to write")
    fuse.add_argument("--size", type=int, default=256, help="default: %(default)s")
    fuse.add_argument(
        "--preparation", choices=("window", "minmax-clahe"), default="window",
        help="default: %(default)s",
    )  # fmt: skip
    fuse.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    fuse.add_argument("--quiet", action="store_true", help="no progress bar")

    check = commands.add_parser("check", help="look for problems in a store")
    check.add_argument("store", metavar="STORE")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if all is well, 1 with a line on stderr if not."""
    args = build_parser().parse_args(arguments)
    try:
        return {"phantom": _phantom, "fuse": _fuse, "check": _check}[args.command](args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _phantom(args: argparse.Namespace) -> int:
    from chslib.data.phantom import DEFAULT_VOLUMES, write_phantoms

    number = len(DEFAULT_VOLUMES) if args.volumes is None else args.volumes
    if not 1 <= number <= len(DEFAULT_VOLUMES):
        raise ValueError(f"--volumes {number}: expected 1 to {len(DEFAULT_VOLUMES)}")
    half = len(DEFAULT_VOLUMES) // 2
    mixed = [v for pair in zip(DEFAULT_VOLUMES[:half], DEFAULT_VOLUMES[half:], strict=True)
             for v in pair]  # fmt: skip
    names = write_phantoms(args.out, seed=args.seed, volumes=mixed[:number], depth=args.depth, size=args.size)
    print(f"{args.out}: {len(names)} volumes of {args.depth} slices, seed {args.seed}")
    return 0


def _fuse(args: argparse.Namespace) -> int:
    from chslib.data.fusion import fuse

    told = fuse(
        args.volumes, args.store, size=args.size, preparation=args.preparation,
        workers=args.workers, progress=not args.quiet,
    )  # fmt: skip
    print(
        f"{args.store}: {told['slices_out']} of {told['slices_in']} slices from "
        f"{len(told['volumes'])} volumes, {args.size}x{args.size}, {args.preparation}"
    )
    return 0


def _check(args: argparse.Namespace) -> int:
    from chslib.data.slices import check_store

    problems = check_store(args.store)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{args.store}: {len(problems) or 'no'} problem{'s' * (len(problems) != 1)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
