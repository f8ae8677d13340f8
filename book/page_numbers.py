"""The numbers in the prose of book/: a page names what it tells, the build writes the value of the records.

A page has, between double braces, one of

    dsc RUN                  a score of the record of a run, all test pixels pooled; any score's name;
                             of the profile under which the headline was tested both ways, so that runs can
                             be compared, else of another of the tables'; PROFILE/RUN for a certain one
    mean PROTOCOL RUN        Dice coefficient of a run's seeds (slice) or folds (patient), with their deviation;
                             of the same profile
    patients RUN             the Dice coefficient of each test patient, ascending
    reach RUN                the lowest and the highest of all its new patients, whatever fold
    epochs RUN, size RUN     that it was trained for and at
    copied PROTOCOL TARGET   Dice coefficient of copying the mask of the most similar training slice
    cut RUN, cut gain PROTOCOL
                             Dice coefficient at the threshold that validation slices choose; what that adds,
                             least to most
    alarms share RUN, alarms reach RUN, alarms dsc RUN
                             of a row's folds, or of one: mean share of healed lung called infected, least to most, mean
                             Dice coefficient of the weights that were asked
    spread RUN RUN ...       the most by which the Dice coefficients of runs differ, rounded up; lowest, highest: these
    agree                    how far radiologists agree (book/first_figure.py has the source)
    paper ID, ours ID, seeds ID, new ID, folds ID
                             of a line of the ledger: theirs, ours on random slices, of how many seeds, ours
                             on new patients, and of how many folds
    sealed PROFILE/RUN [VOLUME]
                             Dice coefficient of committed weights on the three sealed volumes, or on one of them;
                             lowest, highest: of all weights for infection
    person RUN               mean over all new patients of a run, each with a Dice coefficient of its own
    steps excluded           how many of the steps of Tables 4 and 5 our intervals exclude (replication.evidence.steps)
    judged WORD ID ...       how many of some lines of the ledger have a verdict that begins with this word: "four of five"
    verdict ID, at ID        of a line, too: the verdict, and the size and epochs at which it was reached
    line ID                  a row's cells: paper, ours, new (and of how many folds, if not of all), where
                             the verdict was reached, the verdict and whose tolerance it has, if borrowed
    implied ID               the Jaccard index that goes with the paper's Dice coefficient
    slices, people, runs     of the committed records: slices and patients of their store, their number
    register                 rows of the register
    open table, open names   runs that full size still lacks (book/open_runs.py)
    figure, explore NAME     that of the first page (book/first_figure.py); what can be moved (book/explorers.py)
    card PART                of the committed weights: a table or words of the model card (book/model_card.py)

Where no record answers, the page reads "not run".
"""

import json
import math
import re
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from explorers import explorer
from first_figure import RADIOLOGISTS, figure
from measured import NOT_RUN, Measured

PLACE = re.compile(r"\{\{ ([^{}]+) \}\}")
LEDGER = ("paper", "ours", "seeds", "new", "folds", "implied", "line", "at", "verdict")
FOLDS = 5  # of the patient protocol, replication.data.slices.splits.FOLDS
COUNTS = {1: "one", 0: "no", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


class Numbers:
    """What the places of a page give way to, read from the repository in folder `source`."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.measured = Measured(source / "results")
        self._profiles: dict[str, Any] = {}

    def fill(self, page: Path) -> None:
        """Write the numbers into a staged page; see `filled`."""
        text = page.read_text(encoding="utf-8")
        if (filled := self.filled(text, page.name)) != text:
            page.write_text(filled, encoding="utf-8")

    def filled(self, text: str, name: str = "the text") -> str:
        """A page's text with its numbers.

        Raises:
            ValueError: a place that asks for nothing known; it names the page and the place.
        """

        def value(place: re.Match[str]) -> str:
            try:
                return self.value(place[1])
            except (KeyError, ValueError, TypeError) as error:
                raise ValueError(
                    f"{name}: {place[0]} ({error}); book/page_numbers.py says what a page can ask for"
                ) from error

        return PLACE.sub(value, text)

    def value(self, asked: str) -> str:
        """The text of one place, for example `dsc table2-infection`.

        Raises:
            KeyError, ValueError, TypeError: nothing known, or with other arguments than it takes.
        """
        what, *names = asked.split()
        if what in LEDGER:
            return self._ledger(what, *names)
        fixed: dict[str, Callable[..., str]] = {
            "mean": self._mean, "patients": self._patients, "reach": self._reach, "epochs": self._epochs, "size": self._size,
            "copied": self.measured.copied, "sealed": self.measured.sealed, "cut": self.measured.cut, "spread": partial(self._over, lambda s: math.ceil((max(s) - min(s)) * 100) / 100), "slices": self._slices, "people": self._people, "runs": self._runs,
            "register": self._register, "open": self._open, "card": self._card, "alarms": self.measured.alarms, "upper": self.measured.upper, "person": self._person, "judged": self._judged, "steps": self._steps, "figure": partial(figure, self), "explore": partial(explorer, self),
            "lowest": partial(self._over, min), "highest": partial(self._over, max), "agree": lambda: f"{RADIOLOGISTS:.2f}",
        }  # fmt: skip
        return fixed[what](*names) if what in fixed else self._score(what, *names)

    @cached_property
    def ours(self) -> Any:
        """The committed records (`replication.evidence.estimates.Ours`)."""
        from replication.evidence.estimates import Ours  # brings torch along

        return Ours(self.source / "results")

    @cached_property
    def base(self) -> str:
        """The profile of `ours` under which the headline was tested both ways; what is compared is of it."""
        return self.ours.alike(["table2-lungs", "table2-infection"], protocols=("slice", "patient"))

    def of_profile(self, profile: str) -> Any:
        """The committed records of one profile."""
        from replication.evidence.estimates import Ours

        if profile not in self._profiles:
            self._profiles[profile] = Ours(self.source / "results", (profile,))
        return self._profiles[profile]

    @cached_property
    def lines(self) -> dict[str, dict[str, Any]]:
        """The ledger's lines by id."""
        from replication.evidence.ledger import ledger_of

        return {line["id"]: line for line in ledger_of(self.ours).to_dict("records")}

    @cached_property
    def runs_of(self) -> dict[str, str]:
        """The run that answers each line of the ledger."""
        from replication.evidence.ledger import paper_numbers

        return dict(paper_numbers()[["id", "run"]].itertuples(index=False))

    def record(self, run: str) -> dict[str, Any] | None:
        """A run's record, of the profile that it names, else of `base`, else of another; None: not run.

        One that was cut short is told only where its profile is named.

        Raises:
            ValueError: no run of the grid, or no such profile.
        """
        from replication.training.grid import get_run

        profile, _, run = run.rpartition("/")
        name = get_run(run).name
        if profile:
            of = self.of_profile(profile)
            return (of.accepted[profile] | of.cut_short[profile]).get(name)
        order = sorted(self.ours.accepted, key=lambda p: p != self.base)
        return next((self.ours.accepted[p][name] for p in order if name in self.ours.accepted[p]), None)

    def _mean(self, protocol: str, run: str) -> str:
        from replication.evidence.ledger import mean_and_std
        from replication.training.grid import get_run

        profile, _, run = run.rpartition("/")
        ours = self.of_profile(profile) if profile else self.ours
        group = ours.group(get_run(run).name, protocol=protocol, profile=profile or self.base)
        found = [record["test"]["pooled"]["dsc"] for record in group.values()]
        return mean_and_std(found, digits=2) if found else NOT_RUN

    def _score(self, score: str, run: str) -> str:
        from chslib.metrics import SCORES

        if score not in SCORES:
            raise KeyError(score)
        record = self.record(run)
        return f"{record['test']['pooled'][score]:.2f}" if record else NOT_RUN

    def _patients(self, run: str) -> str:
        if not (record := self.record(run)):
            return NOT_RUN
        *rest, last = sorted(f"{scores['dsc']:.2f}" for scores in record["test"]["patients"].values())
        return f"{', '.join(rest)} and {last}" if rest else last

    def _held_out(self, run: str, profile: str = "") -> list[float]:
        """Dice coefficient of each new patient of a run, of the profile that is named, else of `base`, else of another."""
        from replication.training.grid import get_run

        sources = [self.of_profile(profile)] if profile else [self.of_profile(self.base), self.ours]
        found = [ours.best(get_run(run).name, protocol="patient")[1] for ours in sources]
        records = next(filter(None, found), [])
        return [patient["dsc"] for record in records for patient in record["test"]["patients"].values()]

    def _reach(self, run: str) -> str:
        found = self._held_out(run)
        return f"{min(found):.2f} to {max(found):.2f}" if found else NOT_RUN

    def _person(self, run: str) -> str:
        profile, _, run = run.rpartition("/")
        found = self._held_out(run, profile)
        return f"{sum(found) / len(found):.2f}" if found else NOT_RUN

    def _epochs(self, run: str) -> str:
        record = self.record(run)
        return f"{record['fit']['epochs']} epochs" if record else NOT_RUN

    def _size(self, run: str) -> str:
        record = self.record(run)
        return "{0}×{0}".format(record["config"]["size"]) if record else NOT_RUN

    def _over(self, shown: Callable[[list[float]], float], *runs: str) -> str:
        records = [self.record(run) for run in runs]
        return NOT_RUN if None in records else f"{shown([r['test']['pooled']['dsc'] for r in records]):.2f}"

    def _steps(self, what: str) -> str:
        from replication.evidence.steps import steps

        found = int(steps(self.ours)[what].sum())
        return COUNTS.get(found, str(found))

    def _judged(self, word: str, *ids: str) -> str:
        found = sum(self.lines[key]["verdict"].startswith(word) for key in ids)
        return f"{COUNTS.get(found, found)} of {COUNTS.get(len(ids), len(ids))}".replace("no of", "none of")

    def _ledger(self, what: str, key: str) -> str:
        from replication.evidence.ledger import mean_and_std

        line = self.lines[key]
        if what == "line":
            cells = [self._ledger(k, key) for k in ("paper", "ours", "new")]
            if 0 < line["folds"] < FOLDS:
                cells[-1] += f" ({self._ledger('folds', key)})"
            at, borrowed = (line[k].replace("x", "×").replace("-", "–") for k in ("at", "borrowed"))
            of = f" (tolerance of {borrowed})" if borrowed else ""
            return " | ".join([*cells, at or "—", line["verdict"] + of])
        if what == "at":
            return line["at"].replace("x", "×").replace("-", "–") or "full size"
        if what == "verdict":
            return line["verdict"]
        if what == "folds":
            return counted(line["folds"], "fold")
        if what == "seeds":
            return counted(line["n"], "seed")
        if what == "implied":
            return f"{float(line['paper']) / (2 - float(line['paper'])):.2f}"
        if what == "paper":
            return "claimed" if line["kind"] == "claim" else line["paper"]
        if line["kind"] == "score":  # from the records: rounding the ledger's three digits would round twice
            protocol = "slice" if what == "ours" else "patient"
            cell = self.ours.cell(self.runs_of[key], line["metric"], protocol=protocol)
            return mean_and_std(cell.pooled, digits=2) if cell else NOT_RUN
        shown = line["ours" if what == "ours" else "new patients"]
        return f"{float(shown.replace(',', '')) / 1e6:.1f}M" if line["kind"] == "parameters" else shown

    @property
    def _accepted(self) -> list[dict[str, Any]]:
        return [record for of in self.ours.accepted.values() for record in of.values()]

    def _slices(self) -> str:
        return _one({record["data"]["slices"] for record in self._accepted})

    def _people(self) -> str:
        return _one({record["data"]["patients"] for record in self._accepted})

    def _runs(self) -> str:
        from replication.evidence.records import load_records
        from replication.training.profiles import PROFILES

        real = [profile for profile in PROFILES if profile != "smoke"]
        return str(sum(len(load_records(self.source / "results", profile)[0]) for profile in real))

    def _card(self, part: str) -> str:
        from model_card import Card

        return Card(self.source).part(part)

    def _open(self, what: str) -> str:
        import open_runs

        return {"table": open_runs.table, "names": open_runs.command}[what](self)

    def _register(self) -> str:
        text = (self.source / "book/register.md").read_text(encoding="utf-8")
        return str(len(re.findall(r"^\(row-\d+\)=$", text, flags=re.M)))


def counted(number: int, what: str) -> str:
    """A count for prose: no fold, one fold, two folds, 5 folds."""
    return f"{COUNTS.get(number, number)} {what}{'s' * (number > 1)}"


def _one(values: set[int]) -> str:
    if len(values) != 1:
        raise ValueError(f"records of {json.dumps(sorted(values))}, expected one number")
    return str(values.pop())
