"""`chs-net list`, `train`, `campaign`: the runs of the grid."""

import argparse
import importlib.util
from typing import Any

from replication.cli.places import add_places


def add_to(groups: Any) -> None:
    """Add the three commands."""
    listing = groups.add_parser("list", help="own runs: done, failed or missing, and how long each took")
    _add_profile(listing, "cpu")
    add_places(listing)
    _add_scope(listing)
    listing.add_argument("--names", action="store_true", help="names only, one a line, to feed a script")
    listing.set_defaults(run_command=_list)

    train = groups.add_parser("train", help="train and score one run of the grid, both stages of a cascade")
    train.add_argument("run", help="its name; chs-net list shows them")
    _add_profile(train, "smoke")
    train.add_argument("--slices", required=True, help="folder of a slice store")
    train.add_argument(
        "--protocol", choices=("patient", "slice"),
        help="patients apart, or random slices (default: own scans by patient, others as the name says)",
    )  # fmt: skip
    add_places(train)
    train.set_defaults(run_command=_train)

    campaign = groups.add_parser("campaign", help="runs by their worth, one after the other, in a given time")
    _add_profile(campaign, "paper")
    campaign.add_argument("--slices", required=True, help="folder of a slice store")
    add_places(campaign)
    _add_scope(campaign)
    campaign.add_argument("--names", nargs="+", metavar="RUN", help="these runs, in this order")
    campaign.add_argument("--minutes", type=float, help="in which all is to end (default: no limit)")
    campaign.add_argument(
        "--not-repeatable",
        action="store_true",
        help="compile each network once: fastest, without checkpoints",
    )
    campaign.add_argument(
        "--pack", metavar="FOLDER", help="gets records, predictions and weights in archives"
    )
    campaign.set_defaults(run_command=_campaign)


def _add_profile(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument(
        "--profile", default=default, help="size of slices and training (default: %(default)s)"
    )


def _add_scope(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--scope", default="all", help="headline, rows or all, by their worth (default: %(default)s)"
    )


def _list(options: argparse.Namespace) -> None:
    from replication.training.grid import campaign, get_run
    from replication.training.profiles import get_profile
    from replication.training.state import run_state

    get_profile(options.profile)
    names = campaign(options.scope)
    if options.names:
        print("\n".join(names))
        return
    where = {"profile": options.profile, "results": options.results, "runs": options.runs}
    states = {name: run_state(name, **where) for name in names}
    for name, state in states.items():
        took = "" if state.seconds is None else f"{state.seconds / 60:6.1f} min"
        print(f"{name:40} {get_run(name).protocol:8} {state.status:8} {took or state.reason}".rstrip())
    count = {s: sum(state.status == s for state in states.values()) for s in ("done", "failed", "not run")}
    spent = sum(state.seconds or 0 for state in states.values()) / 60
    print(f"{options.profile}: " + ", ".join(f"{n} {s}" for s, n in count.items()) + f"; {spent:.1f} min")


def _train(options: argparse.Namespace) -> None:
    from replication.data.slices.store import read_table
    from replication.training.grid import get_run
    from replication.training.own import described, folder_of, run_for, train_stages
    from replication.training.profiles import get_profile
    from replication.training.run import evaluate_run, summary

    get_run(options.run), get_profile(options.profile)  # what was mistyped, before anything is read
    where = {k: getattr(options, k) for k in ("profile", "slices", "results", "runs")}
    for record in train_stages(
        run_for(options.run, read_table(options.slices), protocol=options.protocol), **where
    ):
        if importlib.util.find_spec("monai"):
            record = evaluate_run(record["run"], **where)
        print(f"{described(record)}\n{summary(record)}")
        if importlib.util.find_spec("matplotlib"):
            from replication.figures.cases import draw_run

            for path in draw_run(record, slices=options.slices, runs=options.runs):
                print(path)
    print(f"{folder_of(record, options.runs)}: its weights, for chs-net segment --weights")


def _campaign(options: argparse.Namespace) -> int:
    from replication.training.campaign import train_all
    from replication.training.grid import campaign

    became = train_all(
        options.names or campaign(options.scope), profile=options.profile, slices=options.slices,
        results=options.results, runs=options.runs, minutes=options.minutes,
        repeatable=not options.not_repeatable, pack=options.pack,
    )  # fmt: skip
    return int(any(state.startswith("failed") for state in became.values()))
