"""Every run by name, and the profiles that size them.

A run is one network trained for one stage on one split; its name says which, for example
`table2-lungs` (random slice split), `table2-infection-patient-fold0` (whole patients held out)
or `table2-lungs-seed1`. A profile says at which size, on which data and for how long.
"""

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chslib.data.splits import FOLDS

TARGETS = ("lungs", "infection")


@dataclass(frozen=True)
class Profile:
    """Size and budget of every run of a profile.

    Attributes:
        size: side of the slices, pixels.
        widths: channels of the network, or None for the arm's own.
        batch_size, learning_rate, patience: register row 12 (patience in epochs).
        max_epochs: per target; the paper gives none.
        worth: what its numbers are worth, in one clause, for captions.
    """

    name: str
    size: int
    batch_size: int
    max_epochs: dict[str, int]
    worth: str
    widths: tuple[int, ...] | None = None
    learning_rate: float = 1e-3
    patience: int = 10


PROFILES = {
    "smoke": Profile(
        name="smoke",
        size=64,
        widths=(8, 12, 18, 27, 40),
        batch_size=4,
        max_epochs={"lungs": 6, "infection": 6},
        worth="phantom slices at 64x64, a narrow network, 6 epochs: shows that it runs, never a result",
    ),
    "cpu": Profile(
        name="cpu",
        size=128,
        batch_size=8,
        max_epochs={"lungs": 3, "infection": 5},
        worth="real slices at 128x128, reduced epochs: a real, smaller replication",
    ),
    "paper": Profile(
        name="paper",
        size=256,
        batch_size=16,
        max_epochs={"lungs": 100, "infection": 100},
        worth="real slices at 256x256, trained until early stopping: the replication",
    ),
}


@dataclass(frozen=True)
class Run:
    """One line of the grid.

    Attributes:
        arm: row of Tables 4-5, a key of `chslib.network.ARMS`.
        target: "lungs" (first stage) or "infection" (second stage).
        protocol: "slice" (the paper's) or "patient".
        fold: test fold (patient) or validation fold inside the 70 % (slice).
        seed: of the weights, the order of the slices and the random split.
        first_stage: the run whose predicted lungs feed this one; None for a first stage.
        cascade: how they feed it (register row 9), see `chslib.network.contour_map`.
        network: arguments of `RAIUNet` that differ from the arm's.
    """

    name: str
    arm: str
    target: str
    protocol: str = "slice"
    fold: int = 0
    seed: int = 0
    first_stage: str | None = None
    cascade: str = "mask"
    network: dict[str, Any] = field(default_factory=dict)


def _hierarchical(table: str, arm: str) -> list[Run]:
    """Both stages of one arm: three seeds of the slice split, five patient folds."""
    settings = [("", {"seed": 0}), ("-seed1", {"seed": 1}), ("-seed2", {"seed": 2})]
    settings += [(f"-patient-fold{k}", {"protocol": "patient", "fold": k}) for k in range(FOLDS)]
    runs = []
    for suffix, setting in settings:
        lungs = f"{table}-lungs{suffix}"
        runs.append(Run(name=lungs, arm=arm, target="lungs", **setting))
        runs.append(
            Run(name=f"{table}-infection{suffix}", arm=arm, target="infection", first_stage=lungs, **setting)
        )
    return runs


RUNS: dict[str, Run] = {run.name: run for run in _hierarchical("table2", "full")}


def project_root() -> Path:
    """The folder that holds `notebooks/` and `results/`, from wherever a notebook was opened.

    Raises:
        FileNotFoundError: neither the working folder nor one above it is the project's.
    """
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "_toc.yml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise FileNotFoundError(
        f"{here} is not inside a checkout of this project; start Jupyter or papermill there."
    )


def slice_store(profile: str, slices: str, *, root: Path) -> Path:
    """The store that a profile trains on; for smoke, phantom slices made on the spot if need be.

    Raises:
        ValueError: an unknown profile, or no store given where the profile needs one.
    """
    get_profile(profile)
    if slices:
        return Path(slices)
    if profile != "smoke":
        raise ValueError(
            f"Profile {profile!r} needs a slice store: set the parameter `slices` to its folder."
        )
    store = root / "data" / "phantom" / "slices"
    if not (store / "slices.csv").is_file():
        from chslib.data.fusion import fuse
        from chslib.data.phantom import write_phantoms

        write_phantoms(store.with_name("volumes"))
        fuse(store.with_name("volumes"), store, progress=False)
    return store


def get_profile(name: str) -> Profile:
    """A profile by name.

    Raises:
        ValueError: no such profile.
    """
    if name not in PROFILES:
        raise ValueError(f"Unknown profile {name!r}; expected one of {', '.join(PROFILES)}.")
    return PROFILES[name]


def get_run(name: str) -> Run:
    """A run by name.

    Raises:
        ValueError: no such run.
    """
    if name not in RUNS:
        raise ValueError(f"Unknown run {name!r}; expected one of {', '.join(RUNS)}.")
    return RUNS[name]


def check_inputs(*, profile: str, slices: str | None) -> None:
    """Everything that can be known to be wrong before anything is trained.

    Raises:
        ValueError, FileNotFoundError: an unknown profile; no slice store where the profile needs
            one; a store with problems, of which the first is named and the rest counted.
    """
    get_profile(profile)
    if profile == "smoke" and not slices:
        return  # the phantom is made on the spot
    if not slices:
        raise ValueError(
            f"Profile {profile!r} needs a slice store: make reproduce PROFILE={profile} SLICES=<folder>."
        )
    from chslib.data.slices import check_store

    if problems := check_store(slices):
        more = (
            f" (and {len(problems) - 1} more: python -m chslib.data check {slices})"
            if len(problems) > 1
            else ""
        )
        raise ValueError(problems[0] + more)


def main(arguments: list[str] | None = None) -> int:
    """`python -m chslib.experiments list` and `check`."""
    parser = argparse.ArgumentParser(prog="python -m chslib.experiments", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="refuse an unknown profile or a bad slice store, in one line")
    check.add_argument("--profile", required=True)
    check.add_argument("--slices", default="")
    listing = commands.add_parser("list", help="every run, and whether its record exists")
    listing.add_argument("--profile", default="cpu")
    listing.add_argument("--results", default="results")
    options = parser.parse_args(arguments)
    try:
        if options.command == "check":
            check_inputs(profile=options.profile, slices=options.slices)
        else:
            get_profile(options.profile)
            for run in RUNS.values():
                done = (Path(options.results) / options.profile / f"{run.name}.json").is_file()
                print(f"{run.name:36} {run.protocol:8} {'done' if done else 'not run'}")
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
