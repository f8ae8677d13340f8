"""What we have to set beside a number of the paper: scores from records, counts and settings from
records or from the code, parameters from the networks themselves.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import nn

from chslib.blocks import DepthwiseSeparableConv2d, InceptionConv
from chslib.metrics import SCORES
from chslib.network import ARMS, WIDTHS, CHSNet, build_network, count_parameters
from replication.data.getting.sources import SOURCES
from replication.data.slices.splits import FOLDS
from replication.evidence.budgets import ANSWERING
from replication.evidence.records import HEADLINE, Record, load_records
from replication.evidence.verdicts import Spread, pooled_spread
from replication.peers import build_peer
from replication.training.grid import ALIASES, SETTINGS, get_run, table_networks
from replication.training.profiles import PROFILES

# Column heads of Tables 2-5 -> names in a record.
COLUMNS = dict(zip(("Acc.", "Pre.", "Spe.", "Rec.", "DSC", "JI"), SCORES))
PROTOCOLS = {
    "slice": [s for s, setting in SETTINGS.items() if setting.get("protocol", "slice") == "slice"],
    "patient": [s for s, setting in SETTINGS.items() if setting.get("protocol") == "patient"],
}


def score_of(scores: dict[str, float], metric: str) -> float:
    """A column head's value of a record; "1 - Pre." is what Sec. 4.3 calls false positives."""
    return 1 - scores["precision"] if metric == "1 - Pre." else scores[COLUMNS[metric]]


@dataclass(frozen=True)
class Cell:
    """Our values for one cell: pooled scores by seed or fold, and their runs."""

    pooled: list[float]
    names: list[str]
    profile: str


class Ours:
    """The records of one results folder, for one or more profiles, the first preferred cell by cell.

    Args:
        results: folder of the records.
        profiles: in order of preference; by default the rule of `replication.evidence.budgets`.
        data: see `replication.evidence.records.load_records`.

    A training that its clock cut short (`replication.training.campaign`) is none that its profile describes, so it
    answers no number; it is among the refused. `comparisons.at_full_size` shows it.

    Attributes:
        results, data: as given.
        accepted, refused: by profile, see `load_records`.
        cut_short: by profile, the records of trainings whose time ran out.
    """

    def __init__(
        self, results: str | Path, profiles: Sequence[str] = ANSWERING, *, data: str | None = None
    ) -> None:
        self.results, self.data = Path(results), data
        self._whole = self  # the spread is of one run, whatever is compared (`only`)
        loaded = {profile: load_records(results, profile, data=data) for profile in profiles}
        self.accepted: dict[str, dict[str, Record]] = {p: a for p, (a, _) in loaded.items()}
        self.refused: dict[str, dict[str, str]] = {p: r for p, (_, r) in loaded.items()}
        self.cut_short: dict[str, dict[str, Record]] = {
            profile: {name: r for name, r in of.items() if r["fit"].get("out_of_time")}
            for profile, of in self.accepted.items()
        }
        for profile, of in self.cut_short.items():
            for name, record in of.items():
                del self.accepted[profile][name]
                fit, most = record["fit"], record["config"]["max_epochs"]
                self.refused[profile][name] = f"its time ran out after {fit['epochs']} of {most} epochs"

    @property
    def refusals(self) -> list[str]:
        """A line for each record that does not count, and why."""
        return [
            f"{profile}/{name}.json does not count: {why}"
            for profile, refused in self.refused.items()
            for name, why in refused.items()
        ]

    def group(self, run: str, *, protocol: str, profile: str) -> dict[str, Record]:
        """Records of a run under every seed ("slice") or fold ("patient"), by suffix of the name."""
        names = {suffix: run + suffix for suffix in PROTOCOLS[protocol]}
        named = {suffix: ALIASES.get(name, name) for suffix, name in names.items()}
        return {
            s: self.accepted[profile][name] for s, name in named.items() if name in self.accepted[profile]
        }

    def best(self, run: str, *, protocol: str = "slice") -> tuple[str, list[Record]]:
        """The preferred profile that has records of a run, and these; ("", []) if none has.

        Of the patient protocol a profile with more folds goes before the preferred one: some folds
        are easier than others, and a mean over the easy ones is none over the patients.
        """
        groups = {p: self.group(run, protocol=protocol, profile=p) for p in self.accepted}
        groups = {profile: group for profile, group in groups.items() if group}
        if not groups:
            return "", []
        most = max(len(group) for group in groups.values()) if protocol == "patient" else 0
        profile, group = next((p, g) for p, g in groups.items() if len(g) >= most)
        return profile, list(group.values())

    def both_ways(self, target: str) -> dict[str, dict[str, list[Record]]]:
        """By network of Tables 2-5, its records under either protocol; networks that have both."""
        found = {
            label: {protocol: self.best(run, protocol=protocol)[1] for protocol in PROTOCOLS}
            for run, label in table_networks(target, own=True).items()
        }
        return {label: groups for label, groups in found.items() if all(groups.values())}

    def alike(self, runs: Sequence[str], *, protocols: Sequence[str] = ("slice",)) -> str:
        """The profile in which most of some runs were trained; of equals that with more folds, then the preferred; "" if none was.

        What is compared with one another has to come from one profile: the same slices, size and budget.
        """
        count = {}
        for profile in self.accepted:
            of = {
                (run, p): len(self.group(run, protocol=p, profile=profile)) for run in runs for p in protocols
            }
            count[profile] = (
                sum(map(bool, of.values())),
                sum(n for (_, p), n in of.items() if p == "patient"),
            )
        profile = max(count, key=lambda p: count[p], default="")
        return profile if profile and count[profile][0] else ""

    def only(self, profile: str) -> "Ours":
        """The same records, of one profile alone.

        Raises:
            ValueError: a profile that is not among these.
        """
        if profile not in self.accepted:
            raise ValueError(
                f"No records of profile {profile!r} here; expected one of {', '.join(self.accepted)}."
            )
        chosen = copy.copy(self)
        for kind in ("accepted", "refused", "cut_short"):
            setattr(chosen, kind, {profile: getattr(self, kind)[profile]})
        return chosen

    def _seeds(self, target: str) -> list[tuple[str, str]]:
        """Profile and run of each row of a target that has several seeds on random slices."""
        whole = self._whole
        return [
            (profile, run)
            for profile in whole.accepted
            for run in table_networks(target)
            if len(whole.group(run, protocol="slice", profile=profile)) > 1
        ]

    def spread(self, target: str, metric: str) -> Spread:
        """The spread of one run on random slices, pooled within the rows of a target that have several seeds."""
        return pooled_spread(
            list(self._whole.values(run, metric, protocol="slice", profile=profile).values())
            for profile, run in self._seeds(target)
        )

    def borrowed(self, target: str, profile: str) -> str:
        """What the spread of a target is of, if of no row of this profile, such as "128x128, up to 5 epochs"; else ""."""
        profiles = dict.fromkeys(name for name, _ in self._seeds(target))
        of = [PROFILES[name] for name in profiles if profile not in profiles]
        return "; ".join(f"{p.size}x{p.size}, up to {p.max_epochs[target]} epochs" for p in of)

    def cell(self, run: str, metric: str, *, protocol: str = "slice") -> Cell | None:
        """Our values for a score of the paper, or None where there is no record."""
        profile, group = self.best(run, protocol=protocol)
        if not group:
            return None
        return Cell(
            pooled=[score_of(r["test"]["pooled"], metric) for r in group],
            names=[r["run"] for r in group],
            profile=profile,
        )

    def values(self, run: str, metric: str, *, protocol: str, profile: str) -> dict[str, float]:
        """Pooled scores by suffix, for the comparisons of a claim."""
        group = self.group(run, protocol=protocol, profile=profile)
        return {suffix: score_of(r["test"]["pooled"], metric) for suffix, r in group.items()}


def comparable(results: str | Path, networks_of: str = "best") -> tuple[Ours, Ours]:
    """All records, and those of the one profile in which networks and protocols can be compared.

    Args:
        networks_of: that profile; "best": the one with more of the headline, "cpu" without any.
    """
    every = Ours(results, ANSWERING if networks_of == "best" else (networks_of,))
    if networks_of == "best":
        networks_of = every.alike(HEADLINE, protocols=("slice", "patient")) or "cpu"
    return every, every.only(networks_of)


def shorten(names: Sequence[str]) -> str:
    """Run names in a cell's width: `table2-lungs, -seed1, -seed2`, `table2-lungs-patient-fold0, 1, 2`."""
    base = names[0]
    fold = re.fullmatch(r"(.*-patient-fold)\d+", base)
    return ", ".join([base, *(n.removeprefix(fold[1] if fold else base) for n in names[1:])])


@cache
def parameters(run: str) -> int:
    """Parameters of the network of a row of Table 3, counted.

    CHS-Net counts both networks (register row 1).
    """
    arm, is_cascade = get_run(run).arm, get_run(run).first_stage is not None
    with torch.device("meta"):  # shapes without values: quick, and no random number is drawn
        if arm in ARMS:
            return count_parameters(CHSNet() if is_cascade else build_network(arm))
        return count_parameters(build_peer(arm))


def code_answer(rule: str) -> str | None:
    """What the code has for a setting or Eq. 1, in the paper's notation; None: it has none."""
    if rule == "filters":
        dsc = (m for m in InceptionConv(1, 1).modules() if isinstance(m, DepthwiseSeparableConv2d))
        return ", ".join("{}x{}".format(*d.depthwise.kernel_size) for d in dsc)
    if rule == "stages":
        return {3: "three", 4: "four", 5: "five"}.get(len(build_network().pools))
    if rule == "halving":
        network = build_network()
        return f"{1 - (1 / network.divisor) ** (1 / len(network.pools)):.0%}"
    if rule == "ladder":
        steps = {round(b / a - 1, 6) for a, b in zip(WIDTHS, WIDTHS[1:])}
        return " to ".join(f"{step:.0%}" for step in sorted({min(steps), max(steps)}))
    if rule == "folds":
        return str(FOLDS)
    if rule == "eq1":
        return "1/r + 1/f^2" if _equation_1_holds() else "another ratio"
    if match := re.fullmatch(r"volumes(?: (\[\d+\]))?", rule):
        chosen = [s for s in SOURCES.values() if s.reference.startswith(match[1] or "")]
        return str(sum(len(s.depths) for s in chosen))
    return None


def _equation_1_holds() -> bool:
    """Eq. 1 for parameters, counted: d*f^2 + d*r against d*r*f^2."""
    for d, r, f in ((1, 8, 3), (16, 32, 3), (48, 72, 5), (7, 5, 1)):
        separable = count_parameters(DepthwiseSeparableConv2d(d, r, kernel_size=f))
        standard = count_parameters(nn.Conv2d(d, r, f, bias=False))
        if abs(separable / standard - (1 / r + 1 / f**2)) > 1e-12:
            return False
    return True


def record_answer(rule: str, record: Record) -> str | None:
    """What a run had for a setting, in the paper's notation."""
    config, split = record["config"], record["data"]["split"]
    test = split["test"]["slices"] / record["data"]["slices"]
    loss = re.fullmatch(r"([\d.]+) BCE \(mean\) \+ ([\d.]+) Dice", config["loss"])
    weights = [{"0.5": "1/2"}.get(w, w) for w in loss.groups()] if loss else ["none", "none"]
    return {
        "size": f"{config['size']}x{config['size']}x1",
        "train share": f"{1 - test:.0%}",
        "test share": f"{test:.0%}",
        "bce weight": weights[0],
        "dice weight": weights[1],
    }.get(rule)
