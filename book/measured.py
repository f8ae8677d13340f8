"""What was measured of trained networks beside their runs, as text for the prose; `book/page_numbers.py` asks.

Each method is a place of a page, and takes its words.
"""

import json
from pathlib import Path
from typing import Any

NOT_RUN = "not run"


class Measured:
    """The measurements in a folder of results."""

    def __init__(self, results: Path) -> None:
        self.results = results

    def copied(self, protocol: str, target: str) -> str:
        """Dice coefficient of copying the most similar slice's mask."""
        from replication.analysis.leak import RECORD, mean_of_copies, read_leakage

        if protocol not in ("slice", "patient"):
            raise KeyError(protocol)
        return f"{mean_of_copies(read_leakage(self.results / RECORD), protocol, target=target):.2f}"

    def cut(self, what: str, protocol: str = "") -> str:
        """Dice coefficient of a run at the threshold that validation slices choose; "gain": what that adds."""
        from replication.analysis.thresholds import read_thresholds, thresholds_of
        from replication.training.grid import get_run

        worth = thresholds_of(read_thresholds(self.results))
        if what != "gain":
            profile, _, run = what.rpartition("/")
            of = worth[(worth["run"] == get_run(run).name) & (worth["profile"] == (profile or "cpu"))]
            return NOT_RUN if of.empty else f"{of['chosen'].iloc[0]:.2f}"
        if protocol not in ("slice", "patient"):
            raise KeyError(protocol)
        of = worth[worth["protocol"] == protocol]
        ends = [f"{gain:+.2f}" for gain in (of["chosen"] - of["usual"]).agg(["min", "max"])]
        return NOT_RUN if of.empty else " to ".join(dict.fromkeys(ends))

    def alarms(self, what: str, run: str) -> str:
        """Share of healed lung called infected over the folds of a run, its ends, or the Dice coefficient of those weights."""
        from replication.analysis.false_alarms import of_folds

        of = of_folds(self.results, run)
        if of.empty:
            return NOT_RUN
        share = of["share of lung called infected"] * 100
        shown = {
            "share": f"{share.mean():.1f} %", "dsc": f"{of['DSC'].mean():.2f}",
            "reach": f"{share.min():.1f} to {share.max():.1f} %",
        }  # fmt: skip
        return shown[what]

    def upper(self, what: str, end: str) -> str:
        """Of one scan by an upper end of Hounsfield units: Dice coefficient of the `lungs`, ml called `infected`."""
        from replication.analysis.upper_bound import read_upper_bound

        of = read_upper_bound(self.results).loc[end]
        return {"lungs": f"{of['lungs, DSC']:.3f}", "infected": f"{of['infected, ml']:.0f}"}[what]

    def sealed_of(self, name: str) -> dict[str, Any]:
        """What the sealed test says of one set of weights (`PROFILE/RUN`)."""
        found = self._sealed_test[name]
        return found.get("infection") or found["lungs"]

    @property
    def _sealed_test(self) -> dict[str, Any]:
        return json.loads((self.results / "sealed-test.json").read_text(encoding="utf-8"))["evaluated"]

    def sealed(self, name: str, volume: str = "") -> str:
        """Dice coefficient on the sealed volumes, or on one; "lowest", "highest": of all weights for infection."""
        if name in ("lowest", "highest"):
            scores = [
                of["infection"]["pooled"]["dsc"] for of in self._sealed_test.values() if "infection" in of
            ]
            return f"{(min if name == 'lowest' else max)(scores):.2f}"
        of = self.sealed_of(name)
        return f"{of['patients_dsc'][volume] if volume else of['pooled']['dsc']:.2f}"
