"""`chs-net list`, `train`, `campaign`: the runs of the grid."""

import argparse
import importlib.util
from typing import Any


def add_to(groups: Any) -> None:
    """Add the three commands."""
    listing = groups.add_parser(
        "list", help="every run of the grid: done, failed or missing, and how long it took"
    )
    listing.add_argument("--profile", default="cpu")
    listing.add_argument("--results", default="results")
    listing.add_argument("--runs", default="runs")
    listing.add_argument("--scope", default="all", help="headline, rows or all (%(default)s)")
    listing.add_argument("--names", action="store_true", help="names only, one a line, to feed a script")
    listing.set_defaults(run_command=_list)

    train = groups.add_parser("train", help="train and score one run of the grid")
    train.add_argument("run", help="its name; chs-net list shows them")
    train.add_argument("--profile", default="smoke")
    train.add_argument("--slices", required=True, help="folder of a slice store")
    train.add_argument("--results", default="results")
    train.add_argument("--runs", default="runs")
    train.set_defaults(run_command=_train)

    campaign = groups.add_parser(
        "campaign", help="runs by their worth, several at a time on one GPU, within a given time",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    campaign.add_argument("--profile", default="paper", help="their size")
    campaign.add_argument("--slices", required=True, help="folder of a slice store")
    campaign.add_argument("--results", default="results/local", help="folder of the records")
    campaign.add_argument("--runs", default="runs", help="folder of checkpoints, weights and predictions")
    campaign.add_argument("--scope", default="all", help="headline, rows or all, in the order of their worth")
    campaign.add_argument(
        "--names", nargs="+", metavar="RUN", help="these runs, in this order, in place of a scope"
    )
    campaign.add_argument("--minutes", type=float, help="in which all is to end (default: no limit)")
    campaign.add_argument(
        "--heavy", type=int, default=1, help="trainings with residual inception blocks at a time"
    )
    campaign.add_argument(
        "--light", type=int, default=0, help="of the other networks beside them; 0: one lane for all"
    )
    campaign.add_argument("--not-repeatable", action="store_true", help="let a GPU choose faster algorithms")
    campaign.set_defaults(run_command=_campaign)


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
    from replication.training.run import evaluate_run, summary, train_run

    where = {k: getattr(options, k) for k in ("profile", "slices", "results", "runs")}
    record = train_run(options.run, **where)
    if importlib.util.find_spec("monai"):
        record = evaluate_run(options.run, **where)
    print(summary(record))
    if importlib.util.find_spec("matplotlib"):
        from replication.figures.cases import draw_run

        for path in draw_run(record, slices=options.slices, runs=options.runs):
            print(path)


def _campaign(options: argparse.Namespace) -> int:
    from replication.training.campaign import work
    from replication.training.grid import campaign

    result = work(
        options.names or campaign(options.scope), profile=options.profile, slices=options.slices,
        results=options.results, runs=options.runs, minutes=options.minutes,
        heavy=max(options.heavy, 1), light=max(options.light, 0), repeatable=not options.not_repeatable,
    )  # fmt: skip
    return int("failed" in result.values())
