"""Every run by name: the rows of Tables 2-5, both protocols, seeds, and the register's alternatives.

A run is one network trained for one stage on one split. Its name says which:

    table5-hp-lungs                      row BU+RIB+HP of Table 5, first stage, random slices, seed 0
    table4-bu-seed1                      row BU of Table 4 (direct), another seed and another split
    table2-infection-patient-fold3       the headline's second stage, patients of fold 3 held out
    alt-concat-infection                 a choice of the register taken the other way
    beyond-unet-patient-fold0            not the paper's recipe: what more training can do

Rows that are one and the same training share it: `table5-full-lungs` is `table2-lungs`.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from chslib.network import DOUBLING
from replication.data.slices.splits import FOLDS
from replication.peers import OWN
from replication.training.profiles import TARGETS, Profile

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        arm: row of Tables 4-5, a key of `chslib.network.ARMS`, or a peer of Table 3, a key of
            `replication.peers.PEERS`.
        target: "lungs" (first stage) or "infection" (second stage, or direct).
        protocol: "slice" (the paper's) or "patient".
        fold: test fold (patient) or validation fold inside the 70 % (slice).
        seed: of the weights, the order of the slices and the random split.
        first_stage: the run whose predicted lungs feed this one; None for a first stage, for
            direct segmentation, and where the true lungs feed it.
        cascade: how they feed it (register row 9), see `chslib.network.contour_map`; "truth":
            masked by the true lungs; "mask" has no effect without a first stage.
        network: arguments of the network that differ from the arm's.
        recipe: None: the paper's; see `BeyondRun`. No field here, so that a record of the paper's
            recipe says nothing of others.
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
    recipe: ClassVar[str | None] = None
    loss: ClassVar[str] = "0.5 BCE (mean) + 0.5 Dice"


@dataclass(frozen=True)
class OtherLossRun(Run):
    """A training with another loss than Eq. 15 as we read it (register row 10).

    Attributes:
        loss: a key of `replication.training.recipe.LOSSES`.
    """

    loss: str = Run.loss  # type: ignore[misc]  # a field here alone


@dataclass(frozen=True)
class BeyondRun(Run):
    """A training beyond the paper's recipe; never an answer to a number of the paper.

    Attributes:
        recipe: a key of `replication.training.recipe.RECIPES`.
    """

    recipe: str = "beyond"  # type: ignore[misc]  # a field here alone


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the paper's tables, an alternative of the register, or one beyond the paper's recipe.

    Attributes:
        key: first part of the names of its runs.
        table, label: as the paper prints them; for an alternative, the register's row and words.
        recipe: None: the paper's; else a key of `replication.training.recipe.RECIPES`.
        loss: None: the paper's; else a key of `replication.training.recipe.LOSSES`.
        arm: see `Run`.
        stages: which networks it trains: ("infection",) alone is direct segmentation where
            `first` is None.
        first: key of the row whose lungs feed its second stage; its own if it trains both.
        same_as: the row whose runs these are, for a row printed twice.
    """

    key: str
    table: str
    label: str
    arm: str
    stages: tuple[str, ...]
    first: str | None = None
    cascade: str = "mask"
    network: dict[str, Any] = field(default_factory=dict)
    same_as: str | None = None
    recipe: str | None = None
    loss: str | None = None


def _direct(table: str, key: str, label: str, arm: str, **more: Any) -> Row:
    return Row(key=key, table=table, label=label, arm=arm, stages=("infection",), **more)


def _cascade(table: str, key: str, label: str, arm: str, **more: Any) -> Row:
    return Row(
        **{"key": key, "table": table, "label": label, "arm": arm, "stages": TARGETS, "first": key, **more}
    )


# The tables, in the paper's order and words.
ROWS = (
    _cascade("Table 2", "table2", "CHS-Net", "full"),
    _direct("Table 3", "table3-unet", "U-Net [17]+VGG16", "bu", same_as="table4-bu"),
    _direct("Table 3", "table3-unetpp", "U-Net++ [21]+VGG16", "unetpp"),
    _direct("Table 3", "table3-attention-unet", "AU-Net [22]+VGG16", "attention-unet"),
    _direct("Table 3", "table3-infnet", "Inf-Net [12]+Res2Net", "infnet"),
    _direct("Table 3", "table3-miniseg", "MiniSeg [51]", "miniseg"),
    _cascade("Table 3", "table3-chsnet", "CHS-Net+RAIU-Net", "full", stages=("infection",), same_as="table2"),
    _direct("Table 4", "table4-bu", "BU", "bu"),
    _direct("Table 4", "table4-rib", "BU+RIB", "rib"),
    _direct("Table 4", "table4-hp", "BU+RIB+HP", "rib-hp"),
    _direct("Table 4", "table4-full", "BU+RIB+HP+SSD (RAIU-Net)", "full"),
    _cascade("Table 5", "table5-bu", "BU", "bu"),
    _cascade("Table 5", "table5-rib", "BU+RIB", "rib"),
    _cascade("Table 5", "table5-hp", "BU+RIB+HP", "rib-hp"),
    _cascade("Table 5", "table5-full", "BU+RIB+HP+SSD (CHS-Net)", "full", same_as="table2"),
    # Choices of the register taken the other way.
    _cascade("row 1", "alt-doubling", "widths 16 to 256 by doubling", "full", network={"widths": DOUBLING}),
    _cascade("row 9", "alt-concat", "cascade by concatenation", "full",
             stages=("infection",), first="table2", cascade="concat"),
    _cascade("row 9", "alt-truth", "true lungs in place of predicted", "full",
             stages=("infection",), first=None, cascade="truth"),
    _cascade("row 3", "alt-identity", "'same' spectral pooling as identity", "full",
             network={"same_spectral": "identity"}),
    _cascade("row 7", "alt-relu", "ReLU in Eq. 11", "full", network={"gate": "relu"}),
    # The same, of one network alone (direct).
    _direct("row 10", "alt-sum", "cross entropy summed, as Eq. 13", "full", loss="0.5 BCE (sum) + 0.5 Dice"),
    _direct("row 10", "alt-bce", "cross entropy alone", "full", loss="BCE (mean)"),
    _direct("row 10", "alt-dice", "Dice loss alone", "full", loss="Dice"),
    _direct("row 8", "alt-shortcut", "1x1 shortcut", "full", network={"shortcut_kernel": 1}),
    _direct("row 1", "alt-up2", "2x2 transposed convolutions", "full", network={"up_kernel": 2}),
    _direct("row 29", "alt-average", "average in place of spectral pooling", "full",
            network={"pooling": "average"}),
    _direct("row 62", "alt-miniseg", "MiniSeg trained as released", "miniseg", network={"released": True}),
    # In no table: augmentation, a schedule and averaged weights, which the paper does not name.
    _direct("beyond", "beyond-unet", "U-Net, beyond the paper's recipe", "bu", recipe="beyond"),
    _direct("beyond", "beyond-miniseg", "MiniSeg, beyond the paper's recipe", "miniseg", recipe="beyond"),
    _direct("beyond", "beyond-raiunet", "RAIU-Net, beyond the paper's recipe", "full", recipe="beyond"),
    _direct("beyond", "beyond-context", "U-Net with neighbouring slices", "bu", recipe="context"),
    _direct("beyond", "beyond-healed", "MiniSeg with healed slices", "miniseg", recipe="healed"),
    *(_direct("own", f"own-{key}", f"{peer.label}, not in the paper", key) for key, peer in OWN.items()),
)  # fmt: skip

# Suffix of a run's name -> its split and seed.
SETTINGS: dict[str, dict[str, Any]] = {
    "": {"seed": 0},
    **{f"-seed{s}": {"seed": s} for s in SEEDS[1:]},
    **{f"-patient-fold{k}": {"protocol": "patient", "fold": k} for k in range(FOLDS)},
}


def run_name(row: Row, target: str, suffix: str = "") -> str:
    """Name of the run that trains one stage of a row; of the row it is the same as, if it is.

    Args:
        suffix: a key of `SETTINGS`.
    """
    own = next(r for r in ROWS if r.key == row.same_as) if row.same_as else row
    return _name(own, target, suffix)


def table_networks(target: str, *, own: bool = False) -> dict[str, str]:
    """What the rows of Tables 2-5 with a stage of this target are called, by the run of it; with `own`, one's own too.

    A run that several rows share is named once, by the first. The name says whether the network
    reads whole slices (direct) or the lungs that another one found (two stages).
    """
    named: dict[str, str] = {}
    for row in ROWS:
        if (row.table.startswith("Table") or own and row.table == "own") and target in row.stages:
            how = "" if row.key == "table2" else ", two stages" if row.first else ", direct"
            short = row.label.split(" [")[0].split(" (")[-1].rstrip(")")
            named.setdefault(run_name(row, target), short + how)
    return named


def _name(row: Row, target: str, suffix: str) -> str:
    direct = row.stages == ("infection",) and not row.key.startswith("alt-")
    return f"{row.key}{'' if direct else f'-{target}'}{suffix}"


def _grid() -> tuple[dict[str, Run], dict[str, str]]:
    runs, aliases = {}, {}
    for row in ROWS:
        for suffix, setting in SETTINGS.items():
            for target in row.stages:
                name = _name(row, target, suffix)
                if row.same_as:
                    aliases[name] = run_name(row, target, suffix)
                    continue
                second = target == "infection" and row.first
                kind = BeyondRun if row.recipe else OtherLossRun if row.loss else Run
                changes = {k: v for k in ("recipe", "loss") if (v := getattr(row, k))}
                runs[name] = kind(
                    name=name, arm=row.arm, target=target,
                    first_stage=f"{row.first}-lungs{suffix}" if second else None,
                    cascade=row.cascade if target == "infection" else "mask",
                    network=dict(row.network), **setting, **changes,
                )  # fmt: skip
    return runs, aliases


RUNS, ALIASES = _grid()


def get_run(name: str) -> Run:
    """A run by its name, or by another name of the same training (`ALIASES`).

    Raises:
        ValueError: no such run.
    """
    run = RUNS.get(ALIASES.get(name, name))
    if run is None:
        rows = ", ".join(_name(row, row.stages[-1], "") for row in ROWS)
        raise ValueError(
            f"Unknown run {name!r}; expected one of {rows}, or the first stage of a cascade (-lungs "
            f"for -infection), alone or with one of {', '.join(s for s in SETTINGS if s)} behind it "
            "(chs-net list shows all)."
        )
    return run


def run_settings(run: Run, profile: Profile) -> dict[str, Any]:
    """What a run of a profile is trained with, as far as it can be told without building the network."""
    return asdict(run) | {
        "profile": profile.name,
        "size": profile.size,
        "batch_size": profile.batch_size,
        "learning_rate": profile.learning_rate,
        "max_epochs": profile.max_epochs[run.target],
        "patience": profile.patience,
    }


def campaign(scope: str = "all") -> list[str]:
    """Names of the runs in the order of their worth, each behind the first stage that feeds it.

    Args:
        scope: "headline": Table 2, seed 0 and the patient folds; "rows": every row once under
            each protocol (seed 0, patient fold 0); "all": every row, seed and fold.

    Raises:
        ValueError: another scope.
    """
    slice0, folds = [""], [s for s in SETTINGS if "patient" in s]
    seeds = [s for s in SETTINGS if "seed" in s]
    headline = [r for r in ROWS if r.key == "table2"]
    tables = [r for r in ROWS if r.table in ("Table 4", "Table 5", "Table 3", "own") and not r.same_as]
    tables.sort(key=lambda r: (r.table == "Table 3", r.table))
    alternatives = [r for r in ROWS if r.key.startswith("alt-")]
    beyond = [r for r in ROWS if r.recipe]
    plans = {
        "headline": [(headline, slice0), (headline, folds)],
        "rows": [(headline, slice0), (tables, slice0), (alternatives, slice0),
                 (headline, folds[:1]), (tables, folds[:1]), (alternatives, folds[:1]),
                 (beyond, folds[:1]), (beyond, slice0)],
        "all": [(headline, slice0), (headline, folds), (tables, slice0), (headline, seeds),
                (alternatives, slice0), (tables, folds), (tables, seeds), (alternatives, folds),
                (alternatives, seeds), (beyond, folds), (beyond, slice0), (beyond, seeds)],
    }  # fmt: skip
    if scope not in plans:
        raise ValueError(f"scope={scope!r}; expected one of {', '.join(plans)}.")
    names: list[str] = []
    for rows, suffixes in plans[scope]:
        names += [_name(row, t, s) for s in suffixes for row in rows for t in row.stages]
    return names


def with_first_stages(names: list[str]) -> list[str]:
    """The runs by their own names, each once, and behind the first stage that feeds it.

    Raises:
        ValueError: no such run.
    """
    ordered: list[str] = []
    for name in names:
        run = get_run(name)
        ordered += [n for n in (run.first_stage, run.name) if n and n not in ordered]
    return ordered
