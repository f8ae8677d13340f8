"""The profiles that size every run, and what can be known to be wrong before anything is trained.

`smoke` shows that everything runs, on phantom slices; `cpu` is a smaller replication on real
slices; `paper` is the replication. Two more each change one thing of `cpu`, and so measure what its
reduction costs. Profiles write to different folders.
"""

from dataclasses import dataclass, replace
from pathlib import Path

TARGETS = ("lungs", "infection")


@dataclass(frozen=True)
class Profile:
    """Size and budget of every run of a profile.

    Attributes:
        size: side of the slices, pixels.
        widths: channels of the network, or None for the arm's own.
        batch_size, learning_rate, patience: register row 12 (patience in epochs).
        max_epochs: per target; the paper gives none.
        beyond_passes: passes over the training slices in an epoch of a run beyond the paper's
            recipe (`replication.training.recipe`); the rows of its tables make one.
        threads: of torch on a CPU, or None for torch's own; threads that share small maps with other work wait for each other.
        worth: what its numbers are worth, in one clause, for captions.
        beside: the profile that it differs from in one thing, if it does.
        change: that thing, in words.
    """

    name: str
    size: int
    batch_size: int
    max_epochs: dict[str, int]
    worth: str
    widths: tuple[int, ...] | None = None
    learning_rate: float = 1e-3
    patience: int = 10
    beyond_passes: int = 2
    threads: int | None = None
    beside: str | None = None
    change: str = ""


PROFILES = {
    "smoke": Profile(
        name="smoke",
        size=64,
        widths=(8, 12, 18, 27, 40),
        threads=1,
        batch_size=4,
        max_epochs={"lungs": 3, "infection": 3},
        learning_rate=5e-3,  # enough for both stages to find something in three epochs
        worth="phantom slices at 64x64, narrow networks, 3 epochs: shows that it runs, never a result",
    ),
    "cpu": Profile(
        name="cpu",
        size=128,
        batch_size=8,
        max_epochs={"lungs": 3, "infection": 5},
        beyond_passes=3,
        worth="real slices at 128x128, reduced epochs: a real, smaller replication",
    ),
    "paper": Profile(
        name="paper",
        size=256,
        batch_size=16,
        max_epochs={"lungs": 10, "infection": 30},
        worth="real slices at 256x256, at most 10 epochs (lungs) and 30 (infection): the replication",
    ),
}
PROFILES |= {
    "cpu-long": replace(
        PROFILES["cpu"],
        name="cpu-long",
        max_epochs={target: 4 * epochs for target, epochs in PROFILES["cpu"].max_epochs.items()},
        worth="real slices at 128x128, four times the epochs of cpu: what these are worth",
        beside="cpu",
        change="up to four times the epochs",
    ),
    "cpu-30": replace(
        PROFILES["cpu"],
        name="cpu-30",
        max_epochs=PROFILES["paper"].max_epochs,
        worth="real slices at 128x128, the epochs of paper: the cascade and its rivals trained as long",
        beside="cpu",
        change="the epochs of paper, at most 10 (lungs) and 30 (infection)",
    ),
    "cpu-256": replace(
        PROFILES["cpu"],
        name="cpu-256",
        size=256,
        worth="real slices at 256x256, the epochs of cpu: what the size is worth",
        beside="cpu",
        change="256x256 in place of 128x128",
    ),
}


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
    """The store that a profile trains on; for smoke, phantom slices made on the spot if need be, with a bar.

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
        from replication.data.fusing.fusion import fuse
        from replication.data.phantom.volumes import write_phantoms

        write_phantoms(store.with_name("volumes"), progress=True)
        fuse(store.with_name("volumes"), store, progress=True, published=True, patience=600)
    return store


def get_profile(name: str) -> Profile:
    """A profile by name.

    Raises:
        ValueError: no such profile.
    """
    if name not in PROFILES:
        raise ValueError(f"Unknown profile {name!r}; expected one of {', '.join(PROFILES)}.")
    return PROFILES[name]


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
    from replication.data.slices.store import check_store

    if problems := check_store(slices):
        more = f" (and {len(problems) - 1} more: chs-net data check {slices})" if len(problems) > 1 else ""
        raise ValueError(problems[0] + more)
